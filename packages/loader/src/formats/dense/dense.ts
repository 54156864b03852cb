import { denseWeight, isFloat, type DenseWeight } from '@q/tensor';
import { checkShape } from '../check-shape.js';
import type { CheckpointFormat, StoredBase } from '../format.js';
import { fromDevice } from '../stored-tensor.js';

export interface StoredDense extends StoredBase {
  readonly format: 'dense';
}

/** Float values under the weight's own name. What no other format recognises is taken for it. */
export const dense: CheckpointFormat<StoredDense, DenseWeight> = {
  kind: 'dense',
  labels: ['dense'],
  recognise: (_checkpoint, weight) => ({ format: 'dense', weight }),
  layer: () => ({ format: 'dense' }),
  describe: async (_checkpoint, { weight: { shape, dtype } }) => ({
    format: 'dense',
    storedAs: dtype,
    shape,
    dtype,
    counts: isFloat(dtype),
  }),
  read: async ({ weight }, slot, reader) => {
    checkShape(weight, slot.shape);
    return denseWeight((await reader.dense(weight)).keep());
  },
  write: async ({ name }, { values }) => [fromDevice(name, values)],
};
