import { concatColumns, fill, gatedActivation, type Tensor } from '@q/tensor';

/**
 * Every element within ± limit, exactly: the up of a gate of ones, which is what has limits. Three commands, of which
 * two pass over twice the elements.
 * @param x activations [T, width]
 * @param limit 1 or more, so that it leaves the gate alone
 */
export function clip(x: Tensor, limit: number): Tensor {
  const width = x.dim(1);
  const ones = x.backend.empty(x.shape, x.dtype);
  fill(ones, 1);
  const pairs = concatColumns(
    [
      { x: ones, offset: 0 },
      { x, offset: width },
    ],
    2 * width,
  );
  return gatedActivation(pairs, 'none', { limit });
}
