import { dtypeBytes, valueDimOf, type FloatDType } from '@q/tensor';
import type { Model, StateSpec } from './model.js';

/** How much is kept: for each token (of an encoder-decoder: of either text), and for a sequence whatever its length. */
export interface StateSize {
  readonly perToken: number;
  readonly perSequence: number;
}

/** Numbers in one place of the state. */
export const stateElements = (spec: StateSpec): StateSize =>
  spec.kind === 'recurrent'
    ? { perToken: 0, perSequence: spec.shape.reduce((a, b) => a * b, 1) }
    : { perToken: spec.numKvHeads * (spec.headDim + valueDimOf(spec)), perSequence: 0 };

/** Bytes of a model's state in all its places. @param dtype of what is kept */
export function stateBytes({ state }: Pick<Model, 'state'>, dtype: FloatDType): StateSize {
  const sum = (part: keyof StateSize) => state.reduce((total, spec) => total + stateElements(spec)[part], 0);
  return { perToken: sum('perToken') * dtypeBytes(dtype), perSequence: sum('perSequence') * dtypeBytes(dtype) };
}
