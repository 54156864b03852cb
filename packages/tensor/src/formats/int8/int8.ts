import type { FloatDType } from '../../dtype.js';
import type { Tensor } from '../../core/tensor.js';
import { checkFloat, checkShape } from '../../ops/check.js';
import type { StoredWeight, WeightFormat } from '../format.js';

/** LLM.int8 (Dettmers et al. 2022): codes i8 [n, k] = round(127 w / absmax of the row), absmax f32 [n]. */
export interface Int8Weight extends StoredWeight {
  readonly kind: 'int8';
  readonly codes: Tensor;
  readonly absmax: Tensor;
  /**
   * Elements of the input with |x| at or above it are multiplied unquantized; 0: none. bitsandbytes takes their whole
   * columns, over all rows: a row here never depends on others.
   */
  readonly threshold: number;
}

/** Exact bytes of an LLM.int8 weight [n, k]. */
export const int8Bytes = (n: number, k: number): number => n * k + 4 * n;

/**
 * Quantizes each row of a float weight [n, k] by its absmax; bit-equal to bitsandbytes, which rounds the weight to f16
 * first.
 */
export function quantizeInt8(weight: Tensor, { threshold = 6 }: { threshold?: number } = {}): Int8Weight {
  checkFloat('quantizeInt8', 'weight', weight);
  checkShape('quantizeInt8', 'weight', weight, ['n', 'k']);
  const { backend } = weight;
  const [n, k] = weight.shape;
  const codes = backend.allocate([n, k], 'i8').keep();
  const absmax = backend.allocate([n], 'f32').keep();
  backend.submit('quantizeInt8', { x: weight.ref(), codes: codes.ref(), absmax: absmax.ref(), rows: n, width: k });
  return { kind: 'int8', shape: [n, k], codes, absmax, threshold };
}

/** The weight [n, k] that the codes stand for: codes · absmax / 127. */
export function dequantizeInt8(weight: Int8Weight, dtype: FloatDType): Tensor {
  const { backend } = weight.codes;
  const [rows, width] = weight.shape;
  const out = backend.empty(weight.shape, dtype);
  backend.submit('dequantizeInt8', {
    codes: weight.codes.ref(),
    absmax: weight.absmax.ref(),
    out: out.ref(),
    rows,
    width,
  });
  return out;
}

export const int8: WeightFormat<Int8Weight> = {
  kind: 'int8',
  label: () => 'int8',
  map: (weight, replace) => ({ ...weight, codes: replace(weight.codes), absmax: replace(weight.absmax) }),
  scales: ({ absmax }) => [absmax],
  footprint: ({ codes }) => codes.bytes,
  fields: ({ codes, absmax, threshold }) => ({ weight: codes.ref(), absmax: absmax.ref(), threshold }),
  rows: (weight, start, end) => ({
    ...weight,
    shape: [end - start, weight.shape[1]],
    codes: weight.codes.slice(start, end),
    absmax: weight.absmax.slice(start, end),
  }),
  values: dequantizeInt8,
  eagerDType: () => undefined,
};
