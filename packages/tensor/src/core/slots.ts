import type { Weight } from '../formats/registry.js';
import type { Shape, Tensor } from './tensor.js';

/** A tensor that a model wants from a checkpoint. */
export interface TensorSlot {
  readonly kind: 'tensor';
  /** Full name, such as `model.norm.weight`. */
  readonly name: string;
  readonly shape: Shape;
  /** The tensor whose memory it shares when embeddings are tied. */
  readonly tiedTo?: string;
  /** Files may lack it: then it is not loaded. Default false. */
  readonly optional?: boolean;
  load(tensor: Tensor, options?: { shared?: boolean }): void;
  /** The tensor that was loaded. */
  current(): Tensor;
}

/** The weight of a linear layer, which formats may store in other ways than as one tensor. */
export interface LinearSlot {
  readonly kind: 'linear';
  /** Path of the layer, such as `model.layers.0.mlp.up_proj`. */
  readonly module: string;
  /** Full name of the dense weight: `${module}.weight`. */
  readonly name: string;
  readonly shape: readonly [n: number, k: number];
  /** The tensor whose memory it shares when embeddings are tied. */
  readonly tiedTo?: string;
  load(weight: Weight, options?: { shared?: boolean }): void;
  /** The weight that was loaded. */
  current(): Weight;
}

/** The places of a model that a loader fills. */
export type ParameterSlot = TensorSlot | LinearSlot;
