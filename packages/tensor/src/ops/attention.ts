import { ShapeError } from '@q/config';
import type { Tensor } from '../core/tensor.js';
import { checkActivation, checkDType, checkFloat, checkIndices, checkShape } from './check.js';

/**
 * The rows of one forward pass, packed: all tokens of sequence 0, then of sequence 1, and so on. The index tensors live
 * on the device.
 */
export interface Rows {
  /** Packed tokens T. */
  readonly tokens: number;
  /** Sequences B. */
  readonly sequences: number;
  /** Largest number of tokens that a sequence has in this pass. */
  readonly maxQuery: number;
  /** Upper bound of the context lengths. */
  readonly maxContext: number;
  /** i32 [T]: position of each token in its sequence. */
  readonly positions: Tensor;
  /** i32 [T]: place of each token among the keys of its sequence. Default: its position. */
  readonly slots?: Tensor;
  /** i32 [T]: sequence of each token. */
  readonly sequenceOf: Tensor;
  /** i32 [B + 1]: first packed row of each sequence. */
  readonly sequenceStarts: Tensor;
  /** i32 [B]: keys of each sequence, this pass's included. */
  readonly contextLengths: Tensor;
}

/** Rows whose sequences have keys and values in blocks. */
export interface PagedRows extends Rows {
  /** i32 [B, maxBlocks]: blocks of each sequence, in order. */
  readonly blockTables: Tensor;
}

/** What {@link ropeKvWrite} needs of them. */
export type WriteRows = Pick<
  PagedRows,
  'tokens' | 'sequences' | 'maxContext' | 'positions' | 'slots' | 'sequenceOf' | 'blockTables'
>;

/** What {@link attention} needs of them. */
export type AttentionRows = Pick<
  PagedRows,
  'tokens' | 'sequences' | 'maxQuery' | 'maxContext' | 'sequenceStarts' | 'contextLengths' | 'blockTables'
>;

/**
 * Keys and values of one layer in fixed blocks: [numBlocks, numKvHeads, blockSize, headDim], and valueDim in place of
 * headDim.
 */
export interface KvLayer {
  readonly keys: Tensor;
  readonly values: Tensor;
}

/** Where queries, keys and values of each head are in a packed row, in elements; see the command table. */
export interface QkvLayout {
  readonly numHeads: number;
  readonly numKvHeads: number;
  /** Of queries and keys. */
  readonly headDim: number;
  /** Default headDim. */
  readonly valueDim?: number;
  readonly qOffset: number;
  readonly qGroupStride: number;
  readonly kOffset: number;
  readonly vOffset: number;
  readonly kvStride: number;
  readonly rowStride: number;
}

/** Size of a value head. */
export const valueDimOf = ({ headDim, valueDim = headDim }: Pick<QkvLayout, 'headDim' | 'valueDim'>): number =>
  valueDim;

/**
 * The layout of [all query heads | all key heads | all value heads]; where values have a size of their own (DeepSeek),
 * of [all query heads | key and value of each key head].
 */
export function packedQkv(numHeads: number, numKvHeads: number, headDim: number, valueDim = headDim): QkvLayout {
  if (numHeads % numKvHeads !== 0) {
    throw new ShapeError('attention', 'query heads must divide evenly over key/value heads', { numHeads, numKvHeads });
  }
  const queries = numHeads * headDim;
  const keys = numKvHeads * headDim;
  const side = valueDim === headDim;
  return {
    numHeads,
    numKvHeads,
    headDim,
    valueDim,
    qOffset: 0,
    qGroupStride: (numHeads / numKvHeads) * headDim,
    kOffset: queries,
    vOffset: queries + (side ? keys : headDim),
    kvStride: side ? headDim : headDim + valueDim,
    rowStride: queries + keys + numKvHeads * valueDim,
  };
}

/** The layout of rows that hold queries only, as those that attend to the keys of another sequence. */
export function queryLayout(numHeads: number, headDim: number, numKvHeads = numHeads): QkvLayout {
  const rowStride = numHeads * headDim;
  // Keys would begin past the row: ropeKvWrite refuses it.
  return { ...packedQkv(numHeads, numKvHeads, headDim), kOffset: rowStride, vOffset: rowStride, rowStride };
}

/** The layout of rows [all key heads | all value heads], for {@link ropeKvWrite} alone. */
export function keyValueLayout(numKvHeads: number, headDim: number): QkvLayout {
  return packedQkv(0, numKvHeads, headDim);
}

export interface RopeOptions {
  /** f32 [rotaryDim / 2], or [B, rotaryDim / 2] for frequencies that differ per sequence. */
  readonly inverseFrequencies: Tensor;
  /** Pairs (2i, 2i + 1) as GPT-J instead of (i, i + rotaryDim / 2) as Llama. Default false. */
  readonly interleaved?: boolean;
  /** Factor on cos and sin. Default 1. */
  readonly scale?: number;
  /** First rotated element of a head: 0, the default, or headDim - rotaryDim where the last part is rotated. */
  readonly offset?: number;
  /** What rotated queries are multiplied by. */
  readonly queryScaling?: QueryScaling;
}

/** Queries times 1 + beta · ln(1 + floor(position / length)): those past the first `length` positions (Llama 4). */
export interface QueryScaling {
  readonly beta: number;
  /** A positive integer. */
  readonly length: number;
}

/**
 * Rotates queries (in place) and keys by position (Su et al. 2021) and writes keys and values to the cache. Without
 * `rope` it only writes. Afterwards only the queries of `qkv` may be used.
 * @param qkv activations [T, layout.rowStride]; without queries in {@link keyValueLayout}
 */
export function ropeKvWrite(qkv: Tensor, kv: KvLayer, batch: WriteRows, layout: QkvLayout, rope?: RopeOptions): void {
  checkPaged('ropeKvWrite', qkv, kv, batch, layout);
  if (Math.max(layout.kOffset + layout.headDim, layout.vOffset + valueDimOf(layout)) > layout.rowStride)
    throw new ShapeError('ropeKvWrite', 'the rows hold no keys and values', { layout });
  checkIndices('ropeKvWrite', 'positions', batch.positions, [batch.tokens]);
  if (batch.slots) checkIndices('ropeKvWrite', 'slots', batch.slots, [batch.tokens]);
  checkIndices('ropeKvWrite', 'sequenceOf', batch.sequenceOf, [batch.tokens]);
  if (rope) checkRope(rope, batch, layout);
  qkv.backend.lowering.ropeKvWrite(qkv, kv, batch, layout, rope);
}

function checkRope(rope: RopeOptions, batch: WriteRows, layout: QkvLayout): void {
  const { inverseFrequencies: frequencies, offset = 0, queryScaling } = rope;
  checkDType('ropeKvWrite', 'inverseFrequencies', frequencies, 'f32');
  if (frequencies.shape.length === 2)
    checkShape('ropeKvWrite', 'inverseFrequencies', frequencies, [batch.sequences, 'rotaryDim / 2']);
  if (offset + frequencies.dim(-1) * 2 > layout.headDim) {
    throw new ShapeError('ropeKvWrite', 'more frequencies than pairs in a head', {
      frequencies: frequencies.dim(-1),
      offset,
      headDim: layout.headDim,
    });
  }
  if (queryScaling && !(Number.isInteger(queryScaling.length) && queryScaling.length > 0))
    throw new ShapeError('ropeKvWrite', 'the length of queryScaling is no positive integer', { queryScaling });
}

/** What a key adds to the score of a query: row clamp(key position - query position + offset) of a table. */
export interface DistanceBias {
  /** f32 [distances, numHeads]; keys that are farther than it reaches have its first or last row. */
  readonly table: Tensor;
  /** The row of distance 0. */
  readonly offset: number;
}

export interface AttentionOptions {
  /** Factor on the scores. Default 1 / sqrt(headDim). */
  readonly scale?: number;
  /** Default true. */
  readonly causal?: boolean;
  /** Keys a query sees, itself included; 0 for all. */
  readonly window?: number;
  /** softcap · tanh(scores / softcap); 0 for none. */
  readonly softcap?: number;
  /** f32 [numHeads] (Press et al. 2022). */
  readonly alibiSlopes?: Tensor;
  /** Added to the scaled scores, by distance (T5). */
  readonly distanceBias?: DistanceBias;
  /** Float [numHeads]: one more score in the softmax of each head, of no key and with no value (gpt-oss). */
  readonly sinks?: Tensor;
}

/**
 * Softmax attention of the batch's queries over the paged cache, which already holds this pass's keys and values.
 *
 * Cross attention: with queries in {@link queryLayout}, `kv`, `contextLengths`, `blockTables` and `maxContext` of
 * another sequence, and `causal: false`, the keys may be fewer than the queries. What goes by distance then takes
 * query i to be at contextLength - queryLength + i.
 * @returns activations [T, numHeads · valueDim]
 */
export function attention(
  qkv: Tensor,
  kv: KvLayer,
  batch: AttentionRows,
  layout: QkvLayout,
  options: AttentionOptions = {},
): Tensor {
  checkPaged('attention', qkv, kv, batch, layout);
  if (layout.numHeads < 1) throw new ShapeError('attention', 'the rows hold no queries', { layout });
  checkIndices('attention', 'sequenceStarts', batch.sequenceStarts, [batch.sequences + 1]);
  checkIndices('attention', 'contextLengths', batch.contextLengths, [batch.sequences]);
  checkScoreTerms(layout.numHeads, options);
  return qkv.backend.lowering.attention(qkv, kv, batch, layout, options);
}

/** What is added to the scores. */
function checkScoreTerms(numHeads: number, { alibiSlopes, distanceBias, sinks }: AttentionOptions): void {
  if (sinks) {
    checkFloat('attention', 'sinks', sinks);
    checkShape('attention', 'sinks', sinks, [numHeads]);
  }
  if (alibiSlopes) {
    checkDType('attention', 'alibiSlopes', alibiSlopes, 'f32');
    checkShape('attention', 'alibiSlopes', alibiSlopes, [numHeads]);
  }
  if (!distanceBias) return;
  const { table, offset } = distanceBias;
  checkDType('attention', 'distanceBias', table, 'f32');
  checkShape('attention', 'distanceBias', table, ['distances', numHeads]);
  if (table.dim(0) === 0) throw new ShapeError('attention', 'distanceBias has no rows', { got: table.shape });
  if (!Number.isInteger(offset) || offset < 0 || offset > 2 ** 30)
    throw new ShapeError('attention', 'the offset of distanceBias is no row', { offset, table: table.shape });
}

function checkPaged(
  op: string,
  qkv: Tensor,
  kv: KvLayer,
  batch: Pick<PagedRows, 'tokens' | 'sequences' | 'maxContext' | 'blockTables'>,
  layout: QkvLayout,
): void {
  checkActivation(op, 'qkv', qkv);
  checkShape(op, 'qkv', qkv, [batch.tokens, layout.rowStride]);
  checkShape(op, 'keys', kv.keys, ['blocks', layout.numKvHeads, 'blockSize', layout.headDim]);
  checkShape(op, 'values', kv.values, [...kv.keys.shape.slice(0, 3), valueDimOf(layout)]);
  checkDType(op, 'values', kv.values, kv.keys.dtype);
  checkIndices(op, 'blockTables', batch.blockTables, [batch.sequences, 'maxBlocks']);
  const blockSize = kv.keys.dim(2);
  if (batch.blockTables.dim(1) * blockSize < batch.maxContext) {
    throw new ShapeError(op, 'block tables do not cover the batch', {
      blockTables: batch.blockTables.shape,
      sequences: batch.sequences,
      blockSize,
      maxContext: batch.maxContext,
    });
  }
}
