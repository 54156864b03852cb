import type { FloatDType } from '../dtype.js';
import type { Tensor } from '../core/tensor.js';
import { checkFloat, checkShape } from '../ops/check.js';
import type { Int8Weight } from './weight.js';

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
