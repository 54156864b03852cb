import type { Weight } from '../formats/registry.js';
import type { Shape, Tensor } from './tensor.js';

/**
 * Where files keep a parameter: a tensor on disk, or a part of one. Read in the order of the fields: one of a stack,
 * the other way round, some of its rows. Rows are a parameter's first axis: outputs of a layer, elements of a vector.
 */
export interface Source {
  /** Full name of the tensor, as files of a model with a head have it. */
  readonly name: string;
  /** The tensor is a stack [count, ...], and the parameter in this one of it. Default: it is no stack. */
  readonly index?: number;
  /** A matrix that is stored [in, out]. Default false. What is quantized is [out, in] whatever this says. */
  readonly transposed?: boolean;
  /** The parameter's rows are `start`, `start + step`, ... of those there. Default: all of them. */
  readonly rows?: { readonly start: number; readonly step?: number };
}

/** A tensor that a model wants from a checkpoint. */
export interface TensorSlot {
  readonly kind: 'tensor';
  /** Full name, such as `model.norm.weight`. */
  readonly name: string;
  readonly shape: Shape;
  /** Where files have it, the usual place first: that is where it is saved. Default: a tensor of its own name. */
  readonly sources?: readonly Source[];
  /** The tensor whose memory it shares when embeddings are tied. */
  readonly tiedTo?: string;
  /** Files may lack it: then it is not loaded. Default false. */
  readonly optional?: boolean;
  /** It is float32 whatever the dtype of the others. Default false. */
  readonly inFp32?: boolean;
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
  /** Where files have it, the usual place first: that is where it is saved. Default: a tensor of its own name. */
  readonly sources?: readonly Source[];
  /** The tensor whose memory it shares when embeddings are tied. */
  readonly tiedTo?: string;
  load(weight: Weight, options?: { shared?: boolean }): void;
  /** The weight that was loaded. */
  current(): Weight;
}

/** The places of a model that a loader fills. */
export type ParameterSlot = TensorSlot | LinearSlot;
