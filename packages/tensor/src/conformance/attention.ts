import type { Backend } from '../core/backend.js';
import type { Tensor } from '../core/tensor.js';
import type { FloatDType } from '../dtype.js';
import {
  attention,
  packedQkv,
  ropeKvWrite,
  valueDimOf,
  type AttentionOptions,
  type PagedRows,
  type KvLayer,
  type QkvLayout,
  type QueryScaling,
} from '../ops/attention.js';
import { fill } from '../ops/elementwise.js';
import { numbers, type Conformance, type ConformanceCase } from './harness.js';

/** Options of attention without tensors. */
export type ScoreOptions = Omit<AttentionOptions, 'alibiSlopes' | 'distanceBias' | 'sinks'> & {
  readonly sinks?: boolean;
  readonly alibi?: boolean;
  readonly distanceBias?: { readonly distances: number; readonly offset: number };
};

interface Setting {
  readonly name: string;
  /** Context length and, last so many, query length of each sequence. */
  readonly sequences: readonly (readonly [context: number, query: number])[];
  readonly layout: QkvLayout;
  readonly blockSize?: number;
  readonly rope?: {
    rotary: number;
    interleaved?: boolean;
    perSequence?: boolean;
    offset?: number;
    queryScaling?: QueryScaling;
  };
  readonly options?: ScoreOptions;
  readonly cacheDtype?: FloatDType;
}

/** Falcon's layout: per key/value head its queries, then key, then value. */
const grouped = (numHeads: number, numKvHeads: number, headDim: number): QkvLayout => {
  const group = numHeads / numKvHeads;
  const stride = (group + 2) * headDim;
  return {
    numHeads,
    numKvHeads,
    headDim,
    qOffset: 0,
    qGroupStride: stride,
    kOffset: group * headDim,
    vOffset: (group + 1) * headDim,
    kvStride: stride,
    rowStride: numKvHeads * stride,
  };
};

export const settings: readonly Setting[] = [
  { name: 'one token', sequences: [[1, 1]], layout: packedQkv(1, 1, 16) },
  { name: 'prefill', sequences: [[37, 37]], layout: packedQkv(4, 4, 64), rope: { rotary: 64 } },
  {
    name: 'ragged prefill, GQA',
    sequences: [
      [5, 5],
      [70, 70],
      [1, 1],
      [33, 33],
    ],
    layout: packedQkv(8, 2, 64),
    rope: { rotary: 64 },
  },
  {
    name: 'decode',
    sequences: [
      [1, 1],
      [65, 1],
      [300, 1],
    ],
    layout: packedQkv(8, 2, 64),
    rope: { rotary: 64 },
  },
  {
    name: 'decode, one head group of 8',
    sequences: [[700, 1]],
    layout: packedQkv(8, 1, 128),
    rope: { rotary: 128 },
    blockSize: 32,
  },
  {
    name: 'chunked prefill',
    sequences: [
      [90, 20],
      [40, 40],
      [64, 1],
    ],
    layout: packedQkv(4, 2, 32),
    rope: { rotary: 32 },
  },
  {
    name: 'head 80, partial interleaved rope',
    sequences: [
      [19, 19],
      [45, 1],
    ],
    layout: packedQkv(4, 4, 80),
    rope: { rotary: 32, interleaved: true },
  },
  {
    name: 'head 33, interleaved rope, heads that begin at odd elements',
    sequences: [
      [19, 19],
      [45, 1],
    ],
    layout: packedQkv(2, 1, 33),
    rope: { rotary: 6, interleaved: true },
  },
  {
    name: 'head 256',
    sequences: [
      [21, 21],
      [40, 1],
    ],
    layout: packedQkv(2, 1, 256),
    rope: { rotary: 256 },
  },
  {
    name: 'head 24, frequencies per sequence',
    sequences: [
      [9, 9],
      [12, 3],
    ],
    layout: packedQkv(2, 2, 24),
    rope: { rotary: 24, perSequence: true },
  },
  {
    name: 'sliding window',
    sequences: [
      [100, 100],
      [120, 1],
    ],
    layout: packedQkv(4, 2, 64),
    options: { window: 17 },
  },
  {
    name: 'alibi',
    sequences: [
      [50, 50],
      [70, 1],
    ],
    layout: packedQkv(6, 6, 32),
    options: { alibi: true },
  },
  {
    name: 'distance bias, not causal, contexts longer than the table',
    sequences: [
      [150, 150],
      [11, 11],
    ],
    layout: packedQkv(3, 3, 16),
    options: { distanceBias: { distances: 257, offset: 128 }, causal: false, scale: 1 },
  },
  {
    name: 'distance bias, not causal, past both ends of the table',
    sequences: [
      [140, 140],
      [37, 2],
      [90, 1],
    ],
    layout: packedQkv(4, 4, 64),
    options: { distanceBias: { distances: 65, offset: 32 }, causal: false, scale: 1 },
    blockSize: 32,
  },
  {
    name: 'distance bias, causal, one-sided',
    sequences: [
      [90, 90],
      [40, 3],
      [70, 1],
    ],
    layout: packedQkv(5, 5, 24),
    options: { distanceBias: { distances: 32, offset: 31 }, scale: 1 },
  },
  {
    name: 'distance bias, decode over contexts longer than the table, GQA',
    sequences: [
      [300, 1],
      [65, 1],
      [1, 1],
    ],
    layout: packedQkv(6, 2, 64),
    options: { distanceBias: { distances: 129, offset: 128 } },
  },
  {
    name: 'distance bias of one row',
    sequences: [
      [20, 20],
      [9, 1],
    ],
    layout: packedQkv(2, 2, 8),
    options: { distanceBias: { distances: 1, offset: 0 } },
  },
  {
    name: 'distance bias, alibi, window and softcap at once',
    sequences: [
      [80, 80],
      [60, 1],
    ],
    layout: packedQkv(4, 2, 128),
    options: { distanceBias: { distances: 40, offset: 33 }, alibi: true, window: 50, softcap: 4 },
  },
  ...[8, 16, 32].map((headDim) => ({
    name: `head ${headDim}`,
    sequences: [
      [67, 67],
      [80, 5],
      [50, 1],
    ] as const,
    layout: packedQkv(4, 4, headDim),
  })),
  {
    name: 'softcap',
    sequences: [
      [40, 40],
      [55, 1],
    ],
    layout: packedQkv(4, 2, 64),
    options: { softcap: 5, scale: 0.5 },
  },
  {
    name: 'grouped layout',
    sequences: [
      [26, 26],
      [31, 1],
    ],
    layout: grouped(8, 2, 64),
    rope: { rotary: 64 },
  },
  {
    name: 'sinks',
    sequences: [[90, 90], [33, 5], [70, 1]], // prettier-ignore
    layout: packedQkv(4, 2, 64),
    options: { sinks: true },
  },
  {
    name: 'sinks, decode over several splits and a few',
    sequences: [[1300, 1], [1, 1], [65, 1]], // prettier-ignore
    layout: packedQkv(8, 1, 64),
    options: { sinks: true },
    blockSize: 32,
  },
  {
    name: 'sinks, decode of 20 heads that share keys',
    sequences: [[300, 1], [40, 1]], // prettier-ignore
    layout: packedQkv(20, 1, 96),
    options: { sinks: true, window: 128 },
  },
  {
    name: 'sinks, head 33, few rows',
    sequences: [[20, 3], [9, 9]], // prettier-ignore
    layout: packedQkv(2, 1, 33),
    options: { sinks: true, causal: false },
  },
  {
    name: 'sinks, head 128, window, softcap, alibi and distance bias at once',
    sequences: [[150, 150], [60, 1], [80, 7]], // prettier-ignore
    layout: packedQkv(4, 2, 128),
    options: { distanceBias: { distances: 40, offset: 33 }, alibi: true, window: 50, softcap: 4, sinks: true },
  },
  {
    name: 'sinks, f32 cache, window',
    sequences: [[26, 26], [80, 1]], // prettier-ignore
    layout: packedQkv(4, 2, 64),
    options: { sinks: true, window: 8 },
    cacheDtype: 'f32',
  },
  {
    name: 'keys of 192 and values of 128, the last 64 of a head rotated',
    sequences: [[70, 70], [33, 5], [150, 1]], // prettier-ignore
    layout: packedQkv(2, 2, 192, 128),
    rope: { rotary: 64, interleaved: true, offset: 128 },
  },
  ...([
    ['of 192 and values of 128, decode over several splits', [[300, 1], [1, 1]], 192, 128, 64],
    ['of 192 and values of 128, prefill over several tiles, a chunk', [[130, 130], [150, 70]], 192, 128, 64],
    ['of 20 and values of 16, the last 8 of a head rotated', [[40, 40], [33, 5], [50, 1]], 20, 16, 8],
  ] as const).map(([name, sequences, headDim, valueDim, rotary]) => ({
    name: `keys ${name}`,
    sequences,
    layout: packedQkv(2, 2, headDim, valueDim),
    rope: { rotary, interleaved: true, offset: headDim - rotary },
    options: { scale: 0.135 },
    blockSize: 32,
  })), // prettier-ignore
  {
    name: 'keys of 24 and values of 16, the last 8 of a head rotated',
    sequences: [[40, 40], [33, 5], [50, 1]], // prettier-ignore
    layout: packedQkv(4, 4, 24, 16),
    rope: { rotary: 8, interleaved: true, offset: 16 },
  },
  {
    name: 'values larger than keys, GQA, a window and sinks',
    sequences: [[80, 80], [300, 1], [33, 3]], // prettier-ignore
    layout: packedQkv(4, 2, 64, 96),
    rope: { rotary: 32, offset: 8 },
    options: { window: 40, sinks: true },
  },
  {
    name: 'keys of 33 and values of 21',
    sequences: [[19, 19], [45, 1]], // prettier-ignore
    layout: packedQkv(2, 1, 33, 21),
    rope: { rotary: 6, offset: 5 },
  },
  {
    name: 'keys of 128 and values of 64 in blocks of 32',
    sequences: [[140, 140], [700, 1]], // prettier-ignore
    layout: packedQkv(4, 2, 128, 64),
    blockSize: 32,
  },
  {
    name: 'queries scaled by position',
    sequences: [[90, 90], [70, 3], [100, 1]], // prettier-ignore
    layout: packedQkv(4, 2, 64),
    rope: { rotary: 64, queryScaling: { beta: 0.3, length: 16 } },
  },
  {
    name: 'queries scaled by position, partly rotated, head 33',
    sequences: [[30, 30], [45, 1]], // prettier-ignore
    layout: packedQkv(2, 1, 33),
    rope: { rotary: 6, interleaved: true, offset: 3, queryScaling: { beta: 0.1, length: 7 } },
  },
  ...[40, 72, 80, 96, 112, 120, 160, 192].map((headDim) => ({
    name: `head ${headDim}, prefill, a chunk and decode`,
    sequences: [[67, 67], [80, 5], [150, 1]] as const, // prettier-ignore
    layout: packedQkv(4, 2, headDim),
    rope: { rotary: headDim },
    blockSize: 32,
  })),
  {
    name: 'f32 cache',
    sequences: [
      [26, 26],
      [31, 1],
    ],
    layout: packedQkv(4, 2, 64),
    cacheDtype: 'f32',
  },
];

const prefix = (values: readonly number[]) =>
  values.reduce<number[]>((sums, value) => [...sums, sums[sums.length - 1] + value], [0]);

/** The batch, with blocks handed out in a scrambled order. */
export function batchOf(
  backend: Backend,
  sequences: Setting['sequences'],
  blockSize: number,
): { batch: PagedRows; blocks: number } {
  const maxContext = Math.max(...sequences.map(([context]) => context));
  const maxBlocks = Math.ceil(maxContext / blockSize);
  const blocks = sequences.length * maxBlocks;
  const i32 = (values: readonly number[], shape = [values.length]) =>
    backend.tensor(Int32Array.from(values), shape, 'i32');
  const perToken = sequences.flatMap(([context, query], sequence) =>
    Array.from({ length: query }, (_, i) => ({ sequence, position: context - query + i })),
  );
  const tables = Array.from({ length: blocks }, (_, i) => (i * 7 + 3) % blocks);
  const unique = new Set(tables).size === blocks ? tables : tables.map((_, i) => blocks - 1 - i);
  const batch: PagedRows = {
    tokens: perToken.length,
    sequences: sequences.length,
    maxQuery: Math.max(...sequences.map(([, query]) => query)),
    maxContext,
    positions: i32(perToken.map(({ position }) => position)),
    sequenceOf: i32(perToken.map(({ sequence }) => sequence)),
    sequenceStarts: i32(prefix(sequences.map(([, query]) => query))),
    contextLengths: i32(sequences.map(([context]) => context)),
    blockTables: i32(unique, [sequences.length, maxBlocks]),
  };
  return { batch, blocks };
}

export function runAttention(backend: Backend, setting: Setting, dtype: FloatDType): Tensor[] {
  const { layout, sequences, rope, options = {}, blockSize = 16 } = setting;
  const source = numbers(layout.rowStride + sequences.length);
  const { batch, blocks } = batchOf(backend, sequences, blockSize);
  const cache = (dim: number) => {
    const shape = [blocks, layout.numKvHeads, blockSize, dim];
    return backend.tensor(source.normals(shape.reduce((a, b) => a * b, 1)), shape, setting.cacheDtype ?? dtype);
  };
  const kv: KvLayer = { keys: cache(layout.headDim), values: cache(valueDimOf(layout)) };
  const qkv = backend.tensor(source.normals(batch.tokens * layout.rowStride), [batch.tokens, layout.rowStride], dtype);
  const half = (rope?.rotary ?? 0) / 2;
  const frequencies = (copies: number) =>
    Float32Array.from({ length: copies * half }, (_, i) => 10000 ** (-(i % half) / half) / (1 + Math.floor(i / half)));
  ropeKvWrite(
    qkv,
    kv,
    batch,
    layout,
    rope && {
      inverseFrequencies: rope.perSequence
        ? backend.tensor(frequencies(sequences.length), [sequences.length, half], 'f32')
        : backend.tensor(frequencies(1), [half], 'f32'),
      interleaved: rope.interleaved,
      offset: rope.offset,
      queryScaling: rope.queryScaling,
      scale: 1.1,
    },
  );
  const out = attention(qkv, kv, batch, layout, optionsOf(backend, layout.numHeads, options, source));
  return [out, kv.keys, kv.values];
}

/** The options with tensors of random numbers. */
export function optionsOf(
  backend: Backend,
  numHeads: number,
  { alibi, distanceBias, sinks, ...options }: ScoreOptions,
  source: ReturnType<typeof numbers>,
): AttentionOptions {
  const slopes = Float32Array.from({ length: numHeads }, (_, head) => 2 ** -(head + 1));
  return {
    ...options,
    sinks: sinks ? backend.tensor(source.normals(numHeads, 2), [numHeads], 'bf16') : undefined,
    alibiSlopes: alibi ? backend.tensor(slopes, [numHeads], 'f32') : undefined,
    distanceBias: distanceBias && {
      table: backend.tensor(
        source.normals(numHeads * distanceBias.distances),
        [distanceBias.distances, numHeads],
        'f32',
      ),
      offset: distanceBias.offset,
    },
  };
}

/**
 * Positions, lengths and tables are the last values of long tensors that the command before fills: a kernel that reads
 * them too early finds the round before.
 */
const justWritten: ConformanceCase = {
  name: 'rope, cache and attention: positions, lengths and tables that were just written',
  run: (context) =>
    context.same(
      (backend) => {
        const layout = packedQkv(4, 2, 64);
        const [blocks, blockSize, maxBlocks, long] = [5, 16, 20, 1 << 20];
        const source = numbers(5);
        const random = (shape: number[]) =>
          backend.tensor(source.normals(shape.reduce((a, b) => a * b, 1)), shape, context.dtype);
        const cacheShape = [blocks, layout.numKvHeads, blockSize, layout.headDim];
        const kv: KvLayer = { keys: random(cacheShape), values: random(cacheShape) };
        const inverseFrequencies = backend.tensor(
          Float32Array.from({ length: 32 }, (_, i) => 10000 ** (-i / 32)),
          [32],
          'f32',
        );
        const [positions, lengths, tables] = Array.from({ length: 3 }, () => backend.empty([long], 'i32'));
        const last = (tensor: Tensor, count: number) => tensor.slice(long - count, long);
        const constant = (values: number[]) => backend.tensor(Int32Array.from(values), [values.length], 'i32');
        const batch: PagedRows = {
          tokens: 1,
          sequences: 1,
          maxQuery: 1,
          maxContext: maxBlocks * blockSize,
          sequenceOf: constant([0]),
          sequenceStarts: constant([0, 1]),
          positions: last(positions, 1),
          contextLengths: last(lengths, 1),
          blockTables: last(tables, maxBlocks).reshape([1, maxBlocks]),
        };
        const outputs: Tensor[] = [];
        for (const position of [300, 7, 150, 0, 319, 64]) {
          const qkv = random([1, layout.rowStride]);
          fill(lengths, position + 1);
          fill(tables, position % blocks);
          fill(positions, position);
          ropeKvWrite(qkv, kv, batch, layout, { inverseFrequencies });
          fill(tables, (position + 1) % blocks);
          outputs.push(attention(qkv, kv, batch, layout));
          fill(lengths, Math.floor(position / 2) + 1);
          outputs.push(attention(qkv, kv, batch, layout));
        }
        return [...outputs, kv.keys, kv.values];
      },
      { tolerance: context.dtype === 'f32' ? 5e-6 : undefined },
    ),
};

export const attentionCases: ConformanceCase[] = [
  ...settings.map((setting) => ({
    name: `rope, cache and attention: ${setting.name}`,
    run: (context: Conformance) =>
      context.same((backend) => runAttention(backend, setting, context.dtype), {
        tolerance: context.dtype === 'f32' ? 5e-6 : undefined,
      }),
  })),
  justWritten,
];
