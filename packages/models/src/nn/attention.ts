// The one place that knows where keys and values live: in the state of a pass, or within the pass.
import {
  attention,
  ropeKvWrite,
  type AttentionOptions,
  type QkvLayout,
  type RopeOptions,
  type Tensor,
} from '@q/tensor';
import { blocksFor, kvBlockSize } from '../pass/blocks.js';
import type { LayerKeys, Pass } from '../pass/pass.js';

/**
 * Self attention of a layer: rotates queries and keys, keeps keys and values, and mixes.
 * @param qkv activations [T, layout.rowStride]; its queries are rotated in place
 * @param index of the layer among those that keep keys
 * @param options masks, scale and bias, and how to rotate; no `rope`: not at all
 * @returns activations [T, numHeads · headDim]
 */
export function attend(
  qkv: Tensor,
  index: number,
  pass: Pass,
  layout: QkvLayout,
  { rope, ...options }: AttentionOptions & { readonly rope?: RopeOptions } = {},
): Tensor {
  const { layer, rows } = pass.state?.kv(index) ?? withinPass(pass, layout);
  ropeKvWrite(qkv, layer, rows, layout, rope);
  return attention(qkv, layer, rows, layout, options);
}

/** Key of the block tables of passes without state. */
const tables = {};

/** Blocks for this pass alone; keys and values live until the layer's scope ends. */
function withinPass({ backend, dtype, rows, derived }: Pass, { numKvHeads, headDim }: QkvLayout): LayerKeys {
  const counts = derived.current.map(blocksFor);
  const blocks = counts.reduce((sum, count) => sum + count, 0);
  const blockTables = derived.get(tables, (lengths) => consecutiveBlocks(lengths.map(blocksFor)));
  const shape = [blocks, numKvHeads, kvBlockSize, headDim];
  return {
    layer: { keys: backend.empty(shape, dtype), values: backend.empty(shape, dtype) },
    rows: { ...rows, blockTables },
  };
}

/** Block tables of sequences that lie one behind the other. */
function consecutiveBlocks(counts: readonly number[]): Int32Array {
  const most = counts.reduce((max, count) => Math.max(max, count), 0);
  const table = new Int32Array(counts.length * most);
  let next = 0;
  counts.forEach((count, sequence) => {
    for (let i = 0; i < count; i++) table[sequence * most + i] = next++;
  });
  return table;
}
