import type { DType } from '../dtype.js';
import type { QuantType } from '../driver/schema.js';
import type { Tensor } from '../core/tensor.js';

/** A weight in its stored float dtype: values [n, k]. */
export interface DenseWeight {
  readonly kind: 'dense';
  readonly shape: readonly [n: number, k: number];
  readonly values: Tensor;
}

/** Absmax of a 4-bit weight kept in 8 bits ("double quantization", Dettmers et al. 2023, section 3). */
export interface NestedAbsmax {
  /** u8 [blocks]. */
  readonly codes: Tensor;
  /** f32 [ceil(blocks / blockSize)]. */
  readonly absmax: Tensor;
  /** f32 [256]. */
  readonly codebook: Tensor;
  /** f32 [1]: mean of the absmax, subtracted before quantization. */
  readonly offset: Tensor;
  readonly blockSize: number;
}

/** NF4 or FP4 in bitsandbytes' layout: codes u8 [ceil(n k / 2)], the high nibble first. */
export interface Bnb4Weight {
  readonly kind: 'bnb4';
  readonly shape: readonly [n: number, k: number];
  readonly quantType: QuantType;
  readonly blockSize: number;
  readonly codes: Tensor;
  /** f32 [blocks], or nested. */
  readonly absmax: Tensor | NestedAbsmax;
  /** Dtype of the weight before quantization; what dequantization gives. */
  readonly dtype: DType;
  /** Dtype of the product on CUDA. */
  readonly computeDtype: DType;
}

/** LLM.int8 (Dettmers et al. 2022): codes i8 [n, k] = round(127 w / absmax of the row), absmax f32 [n]. */
export interface Int8Weight {
  readonly kind: 'int8';
  readonly shape: readonly [n: number, k: number];
  readonly codes: Tensor;
  readonly absmax: Tensor;
  /**
   * Elements of the input with |x| at or above it are multiplied unquantized; 0: none. bitsandbytes takes their whole
   * columns, over all rows: a row here never depends on others.
   */
  readonly threshold: number;
}

export type Weight = DenseWeight | Bnb4Weight | Int8Weight;

/** Device tensors of a weight, by role. */
export function weightTensors(weight: Weight): Tensor[] {
  switch (weight.kind) {
    case 'dense':
      return [weight.values];
    case 'int8':
      return [weight.codes, weight.absmax];
    case 'bnb4':
      return 'codebook' in weight.absmax
        ? [weight.codes, weight.absmax.codes, weight.absmax.absmax, weight.absmax.codebook, weight.absmax.offset]
        : [weight.codes, weight.absmax];
  }
}

export const weightBytes = (weight: Weight): number =>
  weightTensors(weight).reduce((sum, tensor) => sum + tensor.bytes, 0);

export function disposeWeight(weight: Weight): void {
  for (const tensor of weightTensors(weight)) tensor.dispose();
}
