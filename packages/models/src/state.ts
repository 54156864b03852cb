import { dtypeBytes, valueDimOf, type FloatDType } from '@q/tensor';
import type { Model, StateSpec } from './model.js';

/** Numbers that one token leaves in a place of the state: of an encoder's text where it is `cross`. */
export const elementsPerToken = (spec: StateSpec): number =>
  spec.kind === 'recurrent' ? 0 : spec.numKvHeads * (spec.headDim + valueDimOf(spec));

/** Bytes that a sequence's state grows by with each token (of an encoder-decoder: with one of either text). */
export const stateBytesPerToken = ({ state }: Pick<Model, 'state'>, dtype: FloatDType): number =>
  state.reduce((sum, spec) => sum + elementsPerToken(spec) * dtypeBytes(dtype), 0);
