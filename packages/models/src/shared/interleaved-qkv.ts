import type { QkvLayout } from '@q/tensor';

/** Rows of [heads, (q, k, v), headDim]: one projection that makes the three of a head side by side. */
export const interleavedQkv = (numHeads: number, headDim: number): QkvLayout => ({
  numHeads,
  numKvHeads: numHeads,
  headDim,
  qOffset: 0,
  qGroupStride: 3 * headDim,
  kOffset: headDim,
  vOffset: 2 * headDim,
  kvStride: 3 * headDim,
  rowStride: 3 * numHeads * headDim,
});
