// The one place that knows where keys and values live: in the state of a pass, or within the pass.
import { UnsupportedError } from '@q/config';
import {
  attention,
  headNorm,
  keyValueLayout,
  queryKeyParts,
  queryLayout,
  ropeKvWrite,
  type AttentionOptions,
  type HeadNormOptions,
  type QkvLayout,
  type QueryKeyWeights,
  type RopeOptions,
  type Tensor,
} from '@q/tensor';
import { blocksFor } from '../pass/blocks.js';
import type { LayerKeys, Pass } from '../pass/pass.js';
import { keyValueShapes } from '../state.js';

/** The norms of query and key heads before they are rotated; shapes of the weights: `queryKeyParts` of `@q/tensor`. */
export type QueryKeyNorms = QueryKeyWeights & HeadNormOptions;

/** Masks, scale and bias, and how to rotate; no `rope`: not at all. */
export type SelfAttentionOptions = AttentionOptions & {
  readonly rope?: RopeOptions;
  readonly headNorms?: QueryKeyNorms;
};

/**
 * Self attention of a layer: normalises and rotates queries and keys, keeps keys and values, and mixes.
 * @param qkv activations [T, layout.rowStride]; its queries are rotated in place, keys may change too
 * @param index of the layer among those that keep keys
 * @returns activations [T, numHeads · valueDim]
 */
export const attend = (
  qkv: Tensor,
  index: number,
  pass: Pass,
  layout: QkvLayout,
  options: SelfAttentionOptions = {},
): Tensor => mix(qkv, pass.state?.kv(index) ?? withinPass(pass, layout), layout, options);

/** Self attention of a layer that keeps nothing, whatever state the pass has: that of encoders. */
export const attendWithin = (qkv: Tensor, pass: Pass, layout: QkvLayout, options: SelfAttentionOptions = {}): Tensor =>
  mix(qkv, withinPass(pass, layout), layout, options);

function mix(
  qkv: Tensor,
  { layer, rows }: LayerKeys,
  layout: QkvLayout,
  { rope, headNorms, ...options }: SelfAttentionOptions,
): Tensor {
  if (headNorms) headNorm(qkv, queryKeyParts(layout, headNorms), headNorms);
  ropeKvWrite(qkv, layer, rows, layout, rope);
  return attention(qkv, layer, rows, layout, options);
}

/** Heads of an attention to other keys. */
export interface CrossHeads {
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

/**
 * Keeps what a layer will read of an encoder's output, in the state of the encoder's pass.
 * @param keyValues activations [T, all key heads | all value heads]
 * @param index of the layer among those that read it
 */
export function keepForCross(keyValues: Tensor, index: number, { state }: Pass, heads: CrossHeads): void {
  const { layer, rows } = state!.cross(index);
  ropeKvWrite(keyValues, layer, rows, keyValueLayout(heads.numKvHeads, heads.headDim));
}

/**
 * Attention of a layer to an encoder's output: what {@link keepForCross} left, or in a pass without state the `source`
 * of the pass.
 * @param q activations [T, numHeads · headDim]
 * @param index of the layer among those that read it
 * @param keyValuesOf the encoder's output to [T', all key heads | all value heads]
 * @returns activations [T, numHeads · headDim]
 */
export function attendTo(
  q: Tensor,
  index: number,
  pass: Pass,
  heads: CrossHeads,
  keyValuesOf: (hidden: Tensor) => Tensor,
  options: Pick<AttentionOptions, 'scale'> = {},
): Tensor {
  const { layer, rows } = pass.state?.cross(index) ?? keysOfSource(pass, heads, keyValuesOf);
  const layout = queryLayout(heads.numHeads, heads.headDim, heads.numKvHeads);
  return attention(q, layer, rows, layout, { ...options, causal: false });
}

/** Keys of the encoder's output for this layer alone, as the rows of the pass see them. */
function keysOfSource(
  { source, rows }: Pass,
  { numKvHeads, headDim }: CrossHeads,
  keyValuesOf: (hidden: Tensor) => Tensor,
): LayerKeys {
  if (!source) throw new UnsupportedError('model', 'a decoder ran without what its encoder made');
  const layout = keyValueLayout(numKvHeads, headDim);
  const keys = withinPass(source.pass, layout);
  ropeKvWrite(keyValuesOf(source.hidden), keys.layer, keys.rows, layout);
  const { contextLengths, maxContext, blockTables } = keys.rows;
  return { layer: keys.layer, rows: { ...rows, contextLengths, maxContext, blockTables } };
}

/** Key of the block tables of passes without state. */
const tables = {};

/** Blocks for this pass alone; keys and values live until the layer's scope ends. */
function withinPass(
  { backend, dtype, rows, derived }: Pass,
  heads: Pick<QkvLayout, 'numKvHeads' | 'headDim' | 'valueDim'>,
): LayerKeys {
  const counts = derived.current.map(blocksFor);
  const blocks = counts.reduce((sum, count) => sum + count, 0);
  const blockTables = derived.get(tables, (lengths) => consecutiveBlocks(lengths.map(blocksFor)));
  const { keys, values } = keyValueShapes(heads, blocks);
  return {
    layer: { keys: backend.empty(keys, dtype), values: backend.empty(values, dtype) },
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
