// The arguments of the commands of attention, fused and eager; defaults of their options are here.
import { dtypes, type FloatDType } from '../dtype.js';
import type { CommandArgs } from '../driver/schema.js';
import type { Tensor } from '../core/tensor.js';
import { valueDimOf } from '../ops/attention.js';
import type { AttentionOptions, AttentionRows, KvLayer, QkvLayout, RopeOptions, WriteRows } from '../ops/attention.js';

/** Fields that `ropeKvWrite` and `eagerRope` share. */
export function rotationArgs(qkv: Tensor, rows: WriteRows, layout: QkvLayout, rope: RopeOptions | undefined) {
  const frequencies = rope?.inverseFrequencies;
  return {
    qkv: qkv.ref(),
    positions: rows.positions.ref(),
    sequenceOf: rows.sequenceOf.ref(),
    tokens: rows.tokens,
    numHeads: layout.numHeads,
    numKvHeads: layout.numKvHeads,
    headDim: layout.headDim,
    rotaryDim: frequencies ? frequencies.dim(-1) * 2 : 0,
    rotaryOffset: rope?.offset ?? 0,
    interleaved: Number(rope?.interleaved ?? false),
    perSequence: Number(frequencies?.shape.length === 2),
    ropeScale: rope?.scale ?? 1,
    scalingBeta: rope?.queryScaling?.beta ?? 0,
    scalingLength: rope?.queryScaling?.length ?? 1,
    qOffset: layout.qOffset,
    qGroupStride: layout.qGroupStride,
    kOffset: layout.kOffset,
    kvStride: layout.kvStride,
    rowStride: layout.rowStride,
  };
}

export function ropeArgs(
  qkv: Tensor,
  kv: KvLayer,
  rows: WriteRows,
  layout: QkvLayout,
  rope: RopeOptions | undefined,
): CommandArgs<'ropeKvWrite'> {
  return {
    ...rotationArgs(qkv, rows, layout, rope),
    positions: (rope ? rows.positions : (rows.slots ?? rows.positions)).ref(),
    keyCache: kv.keys.ref(),
    valueCache: kv.values.ref(),
    blockTables: rows.blockTables.ref(),
    inverseFrequencies: rope?.inverseFrequencies.ref(),
    valueDim: valueDimOf(layout),
    vOffset: layout.vOffset,
    blockSize: kv.keys.dim(2),
    maxBlocks: rows.blockTables.dim(1),
  };
}

/** How scores are made of products, and which keys are seen. */
function scoreArgs({ headDim }: QkvLayout, options: AttentionOptions) {
  const { scale = 1 / Math.sqrt(headDim), causal = true, window = 0, softcap = 0 } = options;
  const { alibiSlopes, distanceBias, sinks } = options;
  return {
    alibiSlopes: alibiSlopes?.ref(),
    distanceBias: distanceBias?.table.ref(),
    sinks: sinks?.ref(),
    scale,
    softcap,
    causal: Number(causal),
    window,
    distances: distanceBias?.table.dim(0) ?? 0,
    biasOffset: distanceBias?.offset ?? 0,
  };
}

export function attentionArgs(
  out: Tensor,
  qkv: Tensor,
  kv: KvLayer,
  rows: AttentionRows,
  layout: QkvLayout,
  options: AttentionOptions,
): CommandArgs<'attention'> {
  const { numHeads, numKvHeads, headDim, qOffset, qGroupStride, rowStride } = layout;
  return {
    ...scoreArgs(layout, options),
    qkv: qkv.ref(),
    keyCache: kv.keys.ref(),
    valueCache: kv.values.ref(),
    out: out.ref(),
    sequenceStarts: rows.sequenceStarts.ref(),
    contextLengths: rows.contextLengths.ref(),
    blockTables: rows.blockTables.ref(),
    tokens: rows.tokens,
    sequences: rows.sequences,
    maxQuery: rows.maxQuery,
    maxContext: rows.maxContext,
    numHeads,
    numKvHeads,
    headDim,
    valueDim: valueDimOf(layout),
    qOffset,
    qGroupStride,
    rowStride,
    blockSize: kv.keys.dim(2),
    maxBlocks: rows.blockTables.dim(1),
  };
}

/** Rotates queries and keys in place, as their positions say; every step of it rounds to `dtype`. */
export function rotate(qkv: Tensor, rows: WriteRows, layout: QkvLayout, rope: RopeOptions, dtype: FloatDType): void {
  qkv.backend.submit('eagerRope', {
    ...rotationArgs(qkv, rows, layout, rope),
    inverseFrequencies: rope.inverseFrequencies.ref(),
    dtype: dtypes[dtype].code,
  });
}
