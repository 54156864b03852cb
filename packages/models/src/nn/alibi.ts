import { constantOf, type Constant } from './constant.js';

/**
 * Slopes of attention with linear biases (Press et al. 2022): 2^(-8 i / n) for a power of two n, and for other counts
 * those of the power below with every second one of the power above, as transformers' build_alibi_tensor has them.
 */
export function alibiSlopes(numHeads: number): Float32Array {
  const power = 2 ** Math.floor(Math.log2(numHeads));
  const base = (heads: number) => Math.fround(2 ** -(2 ** -(Math.log2(heads) - 3)));
  return Float32Array.from({ length: numHeads }, (_, head) =>
    head < power ? base(power) ** (head + 1) : base(2 * power) ** (2 * (head - power) + 1),
  );
}

/** The slopes on a device: f32 [numHeads]. */
export const alibiTable = (numHeads: number): Constant => constantOf(alibiSlopes(numHeads), [numHeads]);
