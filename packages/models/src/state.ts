import { dtypeBytes, valueDimOf, type FloatDType, type Shape } from '@q/tensor';
import type { KeyValueSpec, Model, StateSpec } from './model.js';
import { kvBlockSize } from './pass/blocks.js';

/** Shapes of a layer's keys and values in so many blocks: [blocks, numKvHeads, blockSize, dim]. */
export function keyValueShapes(spec: Omit<KeyValueSpec, 'owner'>, blocks: number): { keys: Shape; values: Shape } {
  const side = (dim: number) => [blocks, spec.numKvHeads, kvBlockSize, dim];
  return { keys: side(spec.headDim), values: side(valueDimOf(spec)) };
}

const elementsOf = (shape: Shape): number => shape.reduce((a, b) => a * b, 1);

/** How much is kept: for each token (of an encoder-decoder: of either text), and for a sequence whatever its length. */
export interface StateSize {
  readonly perToken: number;
  readonly perSequence: number;
}

/** Numbers in one place of the state. */
export function stateElements(spec: StateSpec): StateSize {
  if (spec.kind === 'recurrent') return { perToken: 0, perSequence: elementsOf(spec.shape) };
  const { keys, values } = keyValueShapes(spec, 1);
  return { perToken: (elementsOf(keys) + elementsOf(values)) / kvBlockSize, perSequence: 0 };
}

/** Bytes of a model's state in all its places. @param dtype of what is kept */
export function stateBytes({ state }: Pick<Model, 'state'>, dtype: FloatDType): StateSize {
  const sum = (part: keyof StateSize) => state.reduce((total, spec) => total + stateElements(spec)[part], 0);
  return { perToken: sum('perToken') * dtypeBytes(dtype), perSequence: sum('perSequence') * dtypeBytes(dtype) };
}
