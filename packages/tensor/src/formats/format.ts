import type { CommandArgs, TensorRef, WeightKind } from '../driver/schema.js';
import type { FloatDType } from '../dtype.js';
import type { Tensor } from '../core/tensor.js';

type LinearPartArgs = CommandArgs<'linear'>['parts'][number];

/** The fields of a linear command's part that depend on the format; those left out are empty. */
export type WeightFields = { readonly weight: TensorRef } & Partial<Omit<LinearPartArgs, 'kind' | 'n' | 'bias'>>;

/** What every weight [n, k] is, whatever it is stored as. */
export interface StoredWeight {
  readonly kind: WeightKind;
  readonly shape: readonly [n: number, k: number];
}

/**
 * One way of keeping the weight of a linear layer on a device. Everything that depends on the way is here; code outside
 * of this folder asks `formatOf(weight)` and never looks at `kind`.
 */
export interface WeightFormat<W extends StoredWeight> {
  /** Its number in the linear command. */
  readonly kind: W['kind'];
  /** What people call it: `dense`, `nf4`, `int8`. */
  label(weight: W): string;
  /** The weight with another tensor in the place of each that it owns, such as a copy on another device. */
  map(weight: W, replace: (tensor: Tensor) => Tensor): W;
  /** Those of its tensors that hold float scales: finite when the weight was. */
  scales(weight: W): Tensor[];
  /** Bytes as Python's `get_memory_footprint()` counts them. */
  footprint(weight: W): number;
  /** What the linear command is told of it. */
  fields(weight: W): WeightFields;
  /** Rows [start, end) as a weight that shares the memory; undefined where its scales would not be whole. */
  rows(weight: W, start: number, end: number): W | undefined;
  /**
   * The weight as float values [n, k]: a new temporary in `dtype`, except for a dense weight, which gives its own
   * tensor.
   */
  values(weight: W, dtype: FloatDType): Tensor;
  /**
   * With eager numerics, the dtype in which Python multiplies `rows` rows by {@link values}; undefined where it has
   * a product of its own, which the `eagerLinear` command repeats.
   * @param modelDType dtype of the model
   */
  eagerDType(weight: W, rows: number, modelDType: FloatDType): FloatDType | undefined;
}
