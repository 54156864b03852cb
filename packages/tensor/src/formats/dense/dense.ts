import type { Tensor } from '../../core/tensor.js';
import type { StoredWeight, WeightFormat } from '../format.js';

/** A weight in its stored float dtype: values [n, k]. */
export interface DenseWeight extends StoredWeight {
  readonly kind: 'dense';
  readonly values: Tensor;
}

/** The weight of float values [n, k], which it owns from here on. */
export const denseWeight = (values: Tensor): DenseWeight => ({
  kind: 'dense',
  shape: [values.dim(0), values.dim(1)],
  values,
});

export const dense: WeightFormat<DenseWeight> = {
  kind: 'dense',
  label: () => 'dense',
  map: (weight, replace) => ({ ...weight, values: replace(weight.values) }),
  scales: () => [],
  footprint: ({ values }) => values.bytes,
  fields: ({ values }) => ({ weight: values.ref() }),
  rows: ({ values }, start, end) => denseWeight(values.slice(start, end)),
  values: ({ values }) => values,
  eagerDType: (_weight, _rows, modelDType) => modelDType,
};
