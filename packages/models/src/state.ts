import { dtypeBytes, type FloatDType } from '@q/tensor';
import type { Model, StateSpec } from './model.js';

/** Numbers that one token leaves in a place of the state. */
export const elementsPerToken = (spec: StateSpec): number =>
  spec.kind === 'kv' ? 2 * spec.numKvHeads * spec.headDim : 0;

/** Bytes that a sequence's state grows by with each token. */
export const stateBytesPerToken = ({ state }: Pick<Model, 'state'>, dtype: FloatDType): number =>
  state.reduce((sum, spec) => sum + elementsPerToken(spec) * dtypeBytes(dtype), 0);
