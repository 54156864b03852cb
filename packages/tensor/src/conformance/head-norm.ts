// Norms of heads in packed rows, and rows that are put together from others: what lies beside the heads stays as it is.
import type { Backend } from '../core/backend.js';
import type { Tensor } from '../core/tensor.js';
import type { FloatDType } from '../dtype.js';
import { eager } from '../lowering/eager.js';
import { packedQkv, type QkvLayout } from '../ops/attention.js';
import { headNorm, queryKeyParts, type HeadNormOptions, type HeadNormPart } from '../ops/head-norm.js';
import { concatColumns } from '../ops/rows.js';
import { fail, numbers, type ConformanceCase } from './harness.js';

interface Setting {
  readonly name: string;
  readonly layout: QkvLayout;
  /** Shape of the weights: one for all heads, one for each, or one over all heads. */
  readonly weights: 'shared' | 'own' | 'whole';
  readonly weightDtype?: FloatDType;
  readonly options?: Partial<HeadNormOptions>;
}

/** Falcon's layout: the queries of a key head lie before it, groups apart. */
const grouped: QkvLayout = {
  numHeads: 6,
  numKvHeads: 2,
  headDim: 40,
  qOffset: 0,
  qGroupStride: 200,
  kOffset: 120,
  vOffset: 160,
  kvStride: 200,
  rowStride: 400,
};

const settings: readonly Setting[] = [
  { name: 'qwen3', layout: packedQkv(8, 2, 128), weights: 'shared' },
  { name: 'gemma3', layout: packedQkv(4, 1, 256), weights: 'shared', options: { weightOffset: 1, eps: 1e-6 } },
  { name: 'olmo2', layout: packedQkv(16, 16, 128), weights: 'whole', options: { roundFirst: false } },
  { name: 'olmo2, odd', layout: packedQkv(3, 1, 37), weights: 'whole', weightDtype: 'f32' },
  { name: 'cohere', layout: packedQkv(8, 4, 64), weights: 'own', options: { centred: true } },
  { name: 'stablelm', layout: packedQkv(6, 2, 80), weights: 'own', weightDtype: 'f16', options: { centred: true } },
  { name: 'heads in groups apart', layout: grouped, weights: 'own', options: { centred: true, weightOffset: 0.5 } },
  ...[1, 3, 8, 33, 72, 96, 192, 520].map((headDim): Setting => ({
    name: `head ${headDim}`,
    layout: packedQkv(3, 1, headDim),
    weights: 'shared',
    weightDtype: headDim % 2 ? 'f32' : 'bf16',
  })),
  { name: 'over 4,096 values', layout: packedQkv(33, 1, 128), weights: 'whole', options: { centred: true } },
];

const rowCounts = [0, 1, 5, 40];

function shapeOf(weights: Setting['weights'], heads: number, headDim: number): number[] {
  if (weights === 'shared') return [headDim];
  return weights === 'own' ? [heads, headDim] : [heads * headDim];
}

function run(backend: Backend, setting: Setting, rows: number, dtype: FloatDType, spoil?: (x: Float32Array) => void) {
  const { layout, weights, weightDtype = dtype, options } = setting;
  const source = numbers(layout.rowStride + rows);
  const weight = (heads: number) => {
    const shape = shapeOf(weights, heads, layout.headDim);
    return backend.tensor(source.normals(shape.reduce((a, b) => a * b, 1)), shape, weightDtype);
  };
  const parts = queryKeyParts(layout, { query: weight(layout.numHeads), key: weight(layout.numKvHeads) });
  const values = source.normals(rows * layout.rowStride, 3);
  spoil?.(values);
  const x = backend.tensor(values, [rows, layout.rowStride], dtype);
  headNorm(x, parts, { eps: 1e-5, ...options });
  return x;
}

const norms: ConformanceCase[] = settings.map((setting) => ({
  name: `headNorm: ${setting.name}`,
  run: async (context) => {
    for (const rows of rowCounts)
      await context.same((backend) => run(backend, setting, rows, context.dtype), { label: `${rows} rows` });
  },
}));

const tolerances: Readonly<Record<FloatDType, number>> = { f32: 2e-6, f16: 1.5e-4, bf16: 1.2e-3 }; // see eager.ts
const eagerNorms: ConformanceCase[] = settings.map((setting) => ({
  name: `eager headNorm: ${setting.name}`,
  run: async (context) => {
    const { dtype } = context;
    const models: readonly FloatDType[] = dtype === 'f32' ? ['f32', 'f16', 'bf16'] : [dtype];
    for (const model of models) {
      const one = (on: Backend) => on.lowered(eager(model), () => run(on, setting, 5, dtype));
      await context.same(one, { tolerance: tolerances[model], label: model });
    }
  },
}));

/** The latent of DeepSeek's keys: a part of rows that goes on behind it. */
const latent: ConformanceCase = {
  name: 'headNorm: a part of each row, and three more beside it',
  run: (context) =>
    context.same((backend) => {
      const source = numbers(9);
      const weight = (...shape: number[]) =>
        backend.tensor(source.normals(shape.reduce((a, b) => a * b, 1)), shape, context.dtype);
      const parts: HeadNormPart[] = [
        { weight: weight(512), offset: 0 },
        { weight: weight(2, 8), offset: 576, count: 2 },
        { weight: weight(16), offset: 600, count: 4, group: 2, groupStride: 40 },
        { weight: weight(5), offset: 691 },
      ];
      const x = backend.tensor(source.normals(7 * 700), [7, 700], context.dtype);
      headNorm(x, parts, { eps: 1e-6 });
      return x;
    }),
};

const broken: ConformanceCase[] = settings
  .filter(({ weights }) => weights !== 'whole')
  .map((setting) => ({
    name: `headNorm: ${setting.name}: NaN stays in its head`,
    run: async ({ backend, dtype }) => {
      const { headDim, rowStride, numHeads, kOffset } = setting.layout;
      for (const at of [rowStride + headDim - 1, 2 * rowStride + kOffset]) {
        const x = backend.scope(() => run(backend, setting, 3, dtype, (values) => (values[at] = NaN)));
        const result = Array.from((await x.data()) as Float32Array, Number.isNaN);
        x.dispose();
        const first = at - (at % rowStride) + (at % rowStride < headDim ? 0 : kOffset);
        const wrong = result.findIndex((isNaN, i) => isNaN !== (i >= first && i < first + headDim));
        if (wrong >= 0) fail(`NaN at ${at} of ${numHeads} heads of ${headDim}: element ${wrong} is wrong`);
      }
    },
  }));

interface Pieces {
  readonly name: string;
  readonly heads: number;
  readonly nope: number;
  readonly rope: number;
  readonly value: number;
}

/** DeepSeek: queries, then for each head a key of its own part and the shared one, and a value. */
function assembled(backend: Backend, { heads, nope, rope, value }: Pieces, rows: number, dtype: FloatDType): Tensor {
  const source = numbers(heads * nope + rows);
  const random = (width: number) => backend.tensor(source.normals(rows * width), [rows, width], dtype);
  const [head, pair] = [nope + rope, nope + value];
  const [q, keyValues, compressed] = [random(heads * head), random(heads * pair), random(11 + rope)];
  const [keys, stride] = [heads * head, head + value];
  return concatColumns(
    [
      { x: q, offset: 0 },
      { x: keyValues, fromStride: pair, offset: keys, stride, count: heads, width: nope },
      { x: compressed, from: 11, offset: keys + nope, stride, count: heads, width: rope },
      { x: keyValues, from: nope, fromStride: pair, offset: keys + head, stride, count: heads, width: value },
    ],
    keys + heads * stride,
  );
}

const concats: ConformanceCase[] = [
  { name: 'DeepSeek', heads: 4, nope: 128, rope: 64, value: 128 },
  { name: 'odd sizes', heads: 3, nope: 5, rope: 3, value: 7 },
  { name: 'one head', heads: 1, nope: 16, rope: 8, value: 8 },
].map((pieces) => ({
  name: `concatColumns: ${pieces.name}`,
  run: async (context) => {
    for (const rows of rowCounts)
      await context.same((backend) => assembled(backend, pieces, rows, context.dtype), { exact: true });
  },
}));

export const headNormCases: readonly ConformanceCase[] = [...norms, ...eagerNorms, latent, ...broken, ...concats];
