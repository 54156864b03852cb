// Numbers that are none. A NaN in what a row sees makes the row NaN, wherever it stands; one in what the row does not
// see changes nothing. A row of broken logits gives the token -1, which the next step carries on without harm.
import type { Backend } from '../core/backend.js';
import type { Tensor } from '../core/tensor.js';
import type { FloatDType } from '../dtype.js';
import { eager } from '../lowering/eager.js';
import { fused } from '../lowering/fused.js';
import type { Lowering } from '../lowering/lowering.js';
import { attention, packedQkv, type AttentionOptions, type PagedRows, type KvLayer } from '../ops/attention.js';
import { activation, argmax, crossEntropy, gatedActivation, softmax } from '../ops/elementwise.js';
import { rmsNorm } from '../ops/norm.js';
import { embedding } from '../ops/rows.js';
import { advance, sample, type SamplingState } from '../ops/sampling.js';
import type { ActivationKind } from '../driver/schema.js';
import { batchOf as pagedBatch } from './attention.js';
import { assertEqual, fail, numbers, relativeError, type Conformance, type ConformanceCase } from './harness.js';

// ---- attention

interface Setting {
  readonly name: string;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Context length and, last so many, query length of each sequence. */
  readonly sequences: readonly (readonly [context: number, query: number])[];
  /** Default headDim. */
  readonly valueDim?: number;
  readonly options?: AttentionOptions;
  readonly sinks?: boolean;
}

/** A number that is none: in a query row, or in the keys or values of a position. */
type Place = { readonly sequence: number; readonly head: number; readonly dim: number } & (
  { readonly query: number } | { readonly key: number } | { readonly value: number }
);

const blockSize = 16;

const settings: readonly Setting[] = [
  { name: 'prefill', heads: 2, kvHeads: 1, headDim: 64, sequences: [[66, 66]] },
  { name: 'a chunk behind several tiles', heads: 4, kvHeads: 2, headDim: 64, sequences: [[200, 12]] },
  { name: 'odd head and length', heads: 2, kvHeads: 1, headDim: 24, sequences: [[37, 37]] },
  { name: 'head of 80, two sequences', heads: 2, kvHeads: 2, headDim: 80, sequences: [[30, 30], [45, 9]] }, // prettier-ignore
  { name: 'head of 128', heads: 2, kvHeads: 1, headDim: 128, sequences: [[140, 16]] },
  { name: 'window', heads: 2, kvHeads: 1, headDim: 64, sequences: [[100, 40]], options: { window: 33 } },
  { name: 'not causal', heads: 2, kvHeads: 2, headDim: 32, sequences: [[24, 24]], options: { causal: false } },
  { name: 'sinks', heads: 2, kvHeads: 1, headDim: 64, sequences: [[50, 20], [33, 1]], sinks: true }, // prettier-ignore
  { name: 'values of a size of their own', heads: 2, kvHeads: 2, headDim: 96, valueDim: 64, sequences: [[70, 40], [90, 1]] }, // prettier-ignore
  { name: 'softcap', heads: 2, kvHeads: 1, headDim: 64, sequences: [[50, 20]], options: { softcap: 5 } },
  { name: 'decode', heads: 4, kvHeads: 2, headDim: 64, sequences: [[90, 1], [33, 1]] }, // prettier-ignore
  { name: 'decode over several splits', heads: 8, kvHeads: 1, headDim: 128, sequences: [[1500, 1]] },
  { name: 'decode with a window', heads: 4, kvHeads: 2, headDim: 64, sequences: [[700, 1]], options: { window: 100 } },
];

/** The first, some inner and the last position, and what lies just in and out of sight of them. */
function placesOf({ heads, kvHeads, headDim, sequences, options }: Setting): Place[] {
  return sequences.flatMap(([context, query], sequence): Place[] => {
    const window = options?.window ?? 0;
    const edge = window > 0 ? [context - window, context - window - 1, context - query - window] : [];
    const positions = [0, context >> 1, context - 1, context - 2, ...edge].filter((p) => p >= 0 && p < context);
    const [head, dim] = [sequence % kvHeads, headDim - 1 - sequence];
    return [
      ...[0, query >> 1, query - 1].map((row) => ({ sequence, head: heads - 1, dim, query: row })),
      ...positions.flatMap((at) => [{ sequence, head, dim, key: at }, { sequence, head, dim: 0, value: at }]), // prettier-ignore
    ];
  });
}

function batchOf(backend: Backend, sequences: Setting['sequences']): PagedRows {
  const i32 = (list: readonly number[], shape = [list.length]) => backend.tensor(Int32Array.from(list), shape, 'i32');
  const maxContext = Math.max(...sequences.map(([context]) => context));
  const maxBlocks = Math.ceil(maxContext / blockSize);
  const starts = sequences.reduce<number[]>((sums, [, query]) => [...sums, sums[sums.length - 1] + query], [0]);
  const rows = sequences.flatMap(([context, query], b) =>
    Array.from({ length: query }, (_, i) => [b, context - query + i]),
  );
  return {
    tokens: rows.length,
    sequences: sequences.length,
    maxQuery: Math.max(...sequences.map(([, query]) => query)),
    maxContext,
    positions: i32(rows.map(([, position]) => position)),
    sequenceOf: i32(rows.map(([sequence]) => sequence)),
    sequenceStarts: i32(starts),
    contextLengths: i32(sequences.map(([context]) => context)),
    blockTables: i32(
      Array.from({ length: sequences.length * maxBlocks }, (_, i) => i),
      [sequences.length, maxBlocks],
    ),
  };
}

/** One attention with NaN in a place, or in none. */
async function attend({ backend, dtype }: Conformance, setting: Setting, lowering: Lowering, place?: Place) {
  const { heads, kvHeads, headDim, valueDim = headDim, sequences } = setting;
  const layout = packedQkv(heads, kvHeads, headDim, valueDim);
  const run = () => {
    const batch = batchOf(backend, sequences);
    const source = numbers(headDim);
    const maxBlocks = batch.blockTables.dim(1);
    const shapeOf = (dim: number) => [sequences.length * maxBlocks, kvHeads, blockSize, dim];
    const qkv = source.normals(batch.tokens * layout.rowStride);
    const caches = [headDim, valueDim].map((dim) => source.normals(shapeOf(dim).reduce((a, b) => a * b, 1)));
    if (place) {
      const at = (position: number, dim: number) =>
        (((place.sequence * maxBlocks + Math.floor(position / blockSize)) * kvHeads + place.head) * blockSize +
          (position % blockSize)) *
          dim +
        place.dim;
      const first = sequences.slice(0, place.sequence).reduce((sum, [, query]) => sum + query, 0);
      if ('query' in place) qkv[(first + place.query) * layout.rowStride + place.head * headDim + place.dim] = NaN;
      else if ('key' in place) caches[0][at(place.key, headDim)] = NaN;
      else caches[1][at(place.value, valueDim)] = NaN;
    }
    const [keys, values] = caches.map((cache, i) =>
      backend.tensor(cache, shapeOf(i === 0 ? headDim : valueDim), dtype),
    );
    const sinks = setting.sinks ? backend.tensor(source.normals(heads), [heads], 'f32') : undefined;
    const options = { ...setting.options, sinks };
    const kv: KvLayer = { keys, values };
    return attention(backend.tensor(qkv, [batch.tokens, layout.rowStride], dtype), kv, batch, layout, options);
  };
  const out = backend.scope(() => backend.lowered(lowering, run));
  const result = (await out.data()) as Float32Array;
  out.dispose();
  return result;
}

/** Which (row, head) pairs see the place. */
function seers({ heads, kvHeads, sequences, options = {} }: Setting, place: Place): Set<number> {
  const found = new Set<number>();
  let row = 0;
  for (const [sequence, [context, query]] of sequences.entries()) {
    for (let i = 0; i < query; i++, row++) {
      if (sequence !== place.sequence) continue;
      const position = context - query + i;
      for (let head = 0; head < heads; head++) {
        if ('query' in place) {
          if (place.query === i && place.head === head) found.add(row * heads + head);
          continue;
        }
        const at = 'key' in place ? place.key : place.value;
        const hidden =
          (options.causal !== false && at > position) || (!!options.window && at <= position - options.window);
        if (!hidden && Math.floor(head / (heads / kvHeads)) === place.head) found.add(row * heads + head);
      }
    }
  }
  return found;
}

const tolerances: Readonly<Record<FloatDType, number>> = { f32: 5e-6, f16: 2e-3, bf16: 1.6e-2 };

async function checkPlaces(context: Conformance, setting: Setting, lowering: Lowering): Promise<void> {
  const whole = await attend(context, setting, lowering);
  const { dtype } = context;
  const { headDim, valueDim = headDim } = setting;
  for (const place of placesOf(setting)) {
    const name = JSON.stringify(place);
    const [got, broken] = [await attend(context, setting, lowering, place), seers(setting, place)];
    for (let item = 0; item < got.length / valueDim; item++) {
      const row = got.subarray(item * valueDim, (item + 1) * valueDim);
      const nans = row.filter(Number.isNaN).length;
      if (broken.has(item)) {
        // A NaN in a value is in its own dimension of the result; elsewhere it is in all.
        const enough = 'value' in place ? Number.isNaN(row[place.dim]) : nans === valueDim;
        if (!enough) fail(`NaN at ${name}: row and head ${item} should be NaN, ${nans} of ${valueDim} are`);
      } else {
        const error = relativeError(row, whole.subarray(item * valueDim, (item + 1) * valueDim));
        if (!(error <= tolerances[dtype]))
          fail(`NaN at ${name}, which row and head ${item} does not see, moves it by ${error}`);
      }
    }
  }
}

const attentions: ConformanceCase[] = settings.flatMap((setting) => [
  {
    name: `attention, ${setting.name}: NaN reaches the rows that see it, and no others`,
    run: (context) => checkPlaces(context, setting, fused),
  },
  {
    name: `eager attention, ${setting.name}: NaN reaches the rows that see it, and no others`,
    run: (context) => checkPlaces(context, setting, eager(context.dtype)),
  },
]);

// ---- rows

const rowsOf = (backend: Backend, dtype: FloatDType, rows: readonly (readonly number[])[]) =>
  backend.tensor(Float32Array.from(rows.flat()), [rows.length, rows[0].length], dtype);

/** Rows of logits, and what a greedy choice gives. */
function logitRows(width: number): { rows: number[][]; tokens: number[] } {
  const source = numbers(width);
  const plain = () => Array.from({ length: width }, () => source.normal());
  const with_ = (row: number[], entries: readonly (readonly [number, number])[]) => {
    for (const [i, value] of entries) row[i] = value;
    return row;
  };
  const [middle, last] = [width >> 1, width - 1];
  const rows = [
    with_(plain(), [[middle, 50]]),
    ...[0, middle, last].map((i) => with_(plain(), [[i, NaN]])),
    ...[0, middle, last].map((i) => with_(plain(), [[i, Infinity]])),
    with_(plain(), [[0, NaN], [last, 60]]), // prettier-ignore
    with_(plain(), [[0, 60], [last, NaN]]), // prettier-ignore
    Array.from({ length: width }, () => -Infinity),
    Array.from({ length: width }, (_, i) => (i === last ? 1 : -Infinity)),
    Array.from({ length: width }, (_, i) => (i === last ? NaN : -Infinity)),
    Array.from({ length: width }, () => NaN),
  ];
  return { rows, tokens: [middle, -1, -1, -1, -1, -1, -1, -1, -1, -1, last, -1, -1] };
}

interface Choice {
  readonly doSample: boolean;
  readonly temperature?: number;
  readonly penalty?: number;
  readonly topK?: number;
  readonly topP?: number;
}

function stateOf(backend: Backend, rows: number, choice: Choice, history?: readonly number[]): SamplingState {
  const { doSample, temperature = 1, penalty = 1, topK = 0, topP = 1 } = choice;
  const repeated = <T>(list: readonly T[]) => Array.from({ length: rows }, () => list).flat();
  return {
    floats: backend.tensor(repeated([temperature, topP, 0, penalty]), [rows, 4], 'f32'),
    ints: backend.tensor(repeated([Number(doSample), topK, 7, 9]), [rows, 4], 'i32'),
    counters: backend.tensor(repeated([3]), [rows], 'i32'),
    history: history && backend.tensor(repeated(history), [rows, history.length], 'i32'),
    historyLengths: history && backend.tensor(repeated([history.length]), [rows], 'i32'),
  };
}

const tokensOf = async (tensor: Tensor) => {
  const ids = Array.from((await tensor.data()) as Int32Array);
  tensor.dispose();
  return ids;
};

const choices: Readonly<Record<string, Choice>> = {
  greedy: { doSample: false },
  'greedy, penalty': { doSample: false, penalty: 1.5 },
  'top-k of one': { doSample: true, topK: 1 },
  'top-p of nothing, cold': { doSample: true, topP: 1e-6, temperature: 0.01 },
  ...Object.fromEntries(
    [1e-6, 1e-20, 1e-37, 1e-39, 1e-45].map((temperature) => [
      `temperature ${temperature}`,
      { doSample: true, temperature },
    ]),
  ),
};

const choosing: ConformanceCase[] = [7, 300, 4096, 32001].flatMap((width) => [
  {
    name: `argmax of broken rows of ${width}: -1`,
    run: async ({ backend, dtype }) => {
      const { rows, tokens } = logitRows(width);
      assertEqual(await tokensOf(backend.scope(() => argmax(rowsOf(backend, dtype, rows)))), tokens, 'argmax');
    },
  },
  ...Object.entries(choices).map(([name, choice]): ConformanceCase => ({
    name: `sample from broken rows of ${width}, ${name}: -1, and the largest of the others`,
    run: async ({ backend, dtype }) => {
      const { rows, tokens } = logitRows(width);
      const history = choice.penalty ? [1, -1, 2] : undefined;
      const picked = backend.scope(() =>
        sample(rowsOf(backend, dtype, rows), stateOf(backend, rows.length, choice, history)),
      );
      assertEqual(await tokensOf(picked), tokens, name);
    },
  })),
]);

const carried: ConformanceCase = {
  name: 'advance and embedding carry -1 on: a row of zeros',
  run: async ({ backend, dtype }) => {
    const rows = backend.scope(() => {
      const i32 = (list: number[]) => backend.tensor(list, [list.length], 'i32');
      const target = { tokenIds: i32([5, 6, 7]), positions: i32([0, 1, 2]), contextLengths: i32([1, 2, 3]) };
      const state = stateOf(backend, 3, { doSample: false, penalty: 2 }, [0, 0, 0, 0]);
      advance(i32([2, -1, 0]), target, { ...state, historyLengths: i32([3, 3, 3]) });
      const table = backend.tensor(Float32Array.from({ length: 4 * 9 }, (_, i) => i + 1), [4, 9], dtype); // prettier-ignore
      const next = embedding(table, target.tokenIds, { dtype, scale: 2 });
      const again = sample(backend.tensor([1, 3, 2, 0, 1, 3, 2, 0, 1, 3, 2, 0], [3, 4], dtype), state);
      return [next, again];
    });
    const [got, again] = await Promise.all(
      rows.map(async (tensor) => Array.from((await tensor.data()) as Float32Array)),
    );
    for (const tensor of rows) tensor.dispose();
    const row = (first: number) => Array.from({ length: 9 }, (_, i) => 2 * (first + i));
    assertEqual(got, [...row(19), ...row(1).map(() => 0), ...row(1)], 'embedding');
    assertEqual(again, [1, 1, 1], 'the next token');
  },
};

const brokenSink: ConformanceCase[] = [
  [40, 9],
  [300, 1],
].map(([context, query]) => ({
  // prettier-ignore
  name: `attention, a sink that is NaN, ${query} of ${context}: its head is, and no other`,
  run: async ({ backend, dtype }) => {
    const [heads, headDim] = [4, 64];
    const out = backend.scope(() => {
      const [source, { batch, blocks }] = [numbers(3), pagedBatch(backend, [[context, query]], blockSize)];
      const shape = [blocks, 2, blockSize, headDim];
      const random = (...of: number[]) => backend.tensor(source.normals(of.reduce((a, b) => a * b, 1)), of, dtype);
      const kv: KvLayer = { keys: random(...shape), values: random(...shape) };
      const layout = packedQkv(heads, 2, headDim);
      const sinks = backend.tensor([0, 1, NaN, -Infinity], [heads], 'f32');
      return attention(random(query, layout.rowStride), kv, batch, layout, { sinks });
    });
    const result = Array.from((await out.data()) as Float32Array, Number.isNaN);
    out.dispose();
    const wrong = result.findIndex((isNaN, i) => isNaN !== (Math.floor(i / headDim) % heads === 2));
    if (wrong >= 0) fail(`a NaN as the sink of head 2: element ${wrong} ${result[wrong] ? 'is' : 'is not'} NaN`);
  },
}));

const rowwise: ConformanceCase[] = [5, 130, 4096].map((width) => ({
  name: `softmax, crossEntropy, rmsNorm and activations of ${width}: NaN stays`,
  run: async ({ backend, dtype }) => {
    const source = numbers(width);
    const rows = [0, width >> 1, width - 1].map((at) =>
      Array.from({ length: width }, (_, i) => (i === at ? NaN : source.normal())),
    );
    rows.push(Array.from({ length: width }, () => source.normal()));
    const kinds: ActivationKind[] = ['silu', 'gelu', 'gelu_tanh', 'relu', 'quick_gelu', 'sigmoid', 'tanh'];
    const made = backend.scope(() => {
      const x = rowsOf(backend, dtype, rows);
      const weight = backend.tensor(new Float32Array(width).fill(1), [width], dtype);
      const targets = backend.tensor([1, 1, 1, 1], [4], 'i32');
      // A gate that is NaN, and an up, with limits.
      const gates = [rowsOf(backend, dtype, rows.map((row) => [...row, ...rows[3]])), rowsOf(backend, dtype, rows.map((row) => [...rows[3], ...row]))]; // prettier-ignore
      const gated = gates.map((pair) => gatedActivation(pair, 'quick_gelu', { limit: 7, upOffset: 1 }));
      return [softmax(x), rmsNorm(x, weight, { eps: 1e-5 }), crossEntropy(x, targets), ...kinds.map((kind) => activation(x, kind)), ...gated]; // prettier-ignore
    });
    const results = await Promise.all(made.map(async (tensor) => Array.from((await tensor.data()) as Float32Array)));
    for (const tensor of made) tensor.dispose();
    for (const [i, result] of results.entries()) {
      const name = ['softmax', 'rmsNorm', 'crossEntropy', ...kinds, 'a gate', 'an up'][i];
      const each = result.length / 4;
      const nans = [0, 1, 2, 3].map((row) => result.slice(row * each, (row + 1) * each).filter(Number.isNaN).length);
      const expected = i < 3 ? each : 1;
      if (nans.join() !== [expected, expected, expected, 0].join()) fail(`${name} has ${nans.join()} NaN in its rows`);
    }
  },
}));

export const brokenCases: readonly ConformanceCase[] = [...attentions, ...brokenSink, ...choosing, carried, ...rowwise];
