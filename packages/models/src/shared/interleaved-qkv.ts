import type { QkvLayout } from '@q/tensor';

/**
 * Rows of [kv heads, (queries of its group, key, value), headDim]: one projection that makes what belongs together side
 * by side. With as many kv heads as heads: query, key and value of each head.
 */
export function interleavedQkv(numHeads: number, headDim: number, numKvHeads = numHeads): QkvLayout {
  const queries = (numHeads / numKvHeads) * headDim;
  const stride = queries + 2 * headDim;
  return {
    numHeads,
    numKvHeads,
    headDim,
    qOffset: 0,
    qGroupStride: stride,
    kOffset: queries,
    vOffset: queries + headDim,
    kvStride: stride,
    rowStride: numKvHeads * stride,
  };
}
