// Attention to the keys of another sequence: rows of keys and values alone are written to a paged layer, rows of
// queries alone attend to it.
import type { Backend } from '../core/backend.js';
import type { Tensor } from '../core/tensor.js';
import type { FloatDType } from '../dtype.js';
import { eager } from '../lowering/eager.js';
import {
  attention,
  keyValueLayout,
  queryLayout,
  ropeKvWrite,
  type AttentionRows,
  type KvLayer,
} from '../ops/attention.js';
import { batchOf, optionsOf, type ScoreOptions } from './attention.js';
import { numbers, type ConformanceCase } from './harness.js';

interface Setting {
  readonly name: string;
  /** Keys and queries of each sequence. */
  readonly sequences: readonly (readonly [keys: number, queries: number])[];
  readonly heads: number;
  readonly kvHeads?: number;
  readonly headDim: number;
  readonly options?: ScoreOptions;
  /** Rotates the keys. */
  readonly rope?: boolean;
  readonly cacheDtype?: FloatDType;
}

const settings: readonly Setting[] = [
  { name: 'prefill', sequences: [[9, 5], [70, 20], [3, 40]], heads: 4, headDim: 64 }, // prettier-ignore
  { name: 'fewer keys than queries', sequences: [[1, 150], [31, 33]], heads: 2, headDim: 32 }, // prettier-ignore
  { name: 'decode', sequences: [[1, 1], [33, 1], [300, 1]], heads: 4, headDim: 64 }, // prettier-ignore
  { name: 'prompts beside decode, GQA', sequences: [[40, 1], [7, 12], [130, 1]], heads: 6, kvHeads: 2, headDim: 128 }, // prettier-ignore
  { name: 'head 8', sequences: [[20, 3], [5, 17]], heads: 3, headDim: 8 }, // prettier-ignore
  { name: 'head 16, rotated keys', sequences: [[20, 3], [50, 1]], heads: 4, headDim: 16, rope: true }, // prettier-ignore
  { name: 'head 33', sequences: [[20, 3], [5, 17]], heads: 2, headDim: 33 }, // prettier-ignore
  { name: 'alibi', sequences: [[12, 30], [60, 4], [9, 1]], heads: 6, headDim: 32, options: { alibi: true } }, // prettier-ignore
  {
    name: 'distance bias',
    sequences: [[12, 30], [160, 40], [90, 1]], // prettier-ignore
    heads: 3,
    headDim: 64,
    options: { distanceBias: { distances: 63, offset: 31 }, scale: 1 },
  },
  { name: 'window', sequences: [[12, 30], [90, 40], [80, 1]], heads: 2, headDim: 64, options: { window: 7 } }, // prettier-ignore
  { name: 'softcap', sequences: [[12, 30], [90, 1]], heads: 2, headDim: 64, options: { softcap: 3 } }, // prettier-ignore
  { name: 'sinks', sequences: [[12, 30], [90, 1]], heads: 4, kvHeads: 2, headDim: 64, options: { sinks: true } }, // prettier-ignore
  { name: 'f32 keys', sequences: [[12, 30], [90, 1]], heads: 2, headDim: 64, cacheDtype: 'f32' }, // prettier-ignore
];

function runCross(backend: Backend, setting: Setting, dtype: FloatDType): Tensor[] {
  const { sequences, heads, kvHeads = heads, headDim, options = {}, rope, cacheDtype = dtype } = setting;
  const source = numbers(heads * headDim + sequences.length);
  const random = (shape: number[], as: FloatDType) =>
    backend.tensor(source.normals(shape.reduce((a, b) => a * b, 1)), shape, as);
  const blockSize = 16;
  const written = batchOf(
    backend,
    sequences.map(([keys]) => [keys, keys]),
    blockSize,
  );
  const shape = [written.blocks, kvHeads, blockSize, headDim];
  const kv: KvLayer = { keys: random(shape, cacheDtype), values: random(shape, cacheDtype) };
  const layout = keyValueLayout(kvHeads, headDim);
  const frequencies = Float32Array.from({ length: headDim / 2 }, (_, i) => 100 ** (-2 * (i / headDim)));
  ropeKvWrite(
    random([written.batch.tokens, layout.rowStride], dtype),
    kv,
    written.batch,
    layout,
    rope ? { inverseFrequencies: backend.tensor(frequencies, [headDim / 2], 'f32') } : undefined,
  );
  const asking = batchOf(
    backend,
    sequences.map(([, queries]) => [queries, queries]),
    blockSize,
  ).batch;
  const { contextLengths, blockTables, maxContext } = written.batch;
  const rows: AttentionRows = { ...asking, contextLengths, blockTables, maxContext };
  const out = attention(
    random([asking.tokens, heads * headDim], dtype),
    kv,
    rows,
    queryLayout(heads, headDim, kvHeads),
    { causal: false, ...optionsOf(backend, heads, options, source) },
  );
  return [out, kv.keys, kv.values];
}

export const crossCases: ConformanceCase[] = settings.flatMap((setting) => [
  {
    name: `attention to another sequence: ${setting.name}`,
    run: (context) =>
      context.same((backend) => runCross(backend, setting, context.dtype), {
        tolerance: context.dtype === 'f32' ? 5e-6 : undefined,
      }),
  },
  {
    name: `eager attention to another sequence: ${setting.name}`,
    run: (context) =>
      context.same(
        (backend) => backend.lowered(eager(context.dtype), () => runCross(backend, setting, context.dtype)),
        {
          tolerance: context.dtype === 'f32' ? 5e-6 : undefined,
        },
      ),
  },
]);
