// Routed experts: the choice, the products of the chosen experts alone, and what broken logits lead to.
import type { Backend } from '../core/backend.js';
import type { Tensor } from '../core/tensor.js';
import type { FloatDType } from '../dtype.js';
import { disposeWeight } from '../formats/registry.js';
import { eager } from '../lowering/eager.js';
import {
  experts,
  route,
  type ExpertFusion,
  type ExpertLayer,
  type RouteOptions,
  type Routing,
} from '../ops/experts.js';
import type { LinearPart } from '../ops/linear.js';
import { assertEqual, fail, numbers, type Conformance, type ConformanceCase } from './harness.js';
import { carried, formats, own, type Quantize } from './linear.js';

// ---- route

interface RouteCase extends Omit<RouteOptions, 'bias'> {
  readonly name: string;
  readonly experts: number;
  readonly biased?: boolean;
}

const routeCases: readonly RouteCase[] = [
  { name: 'mixtral', experts: 8, choices: 2, kind: 'softmax', normalize: true },
  { name: 'qwen2_moe', experts: 60, choices: 4, kind: 'softmax' },
  { name: 'qwen3_moe', experts: 128, choices: 8, kind: 'softmax', normalize: true },
  { name: 'gpt_oss', experts: 32, choices: 4, kind: 'softmax_of_chosen' },
  { name: 'deepseek_v3', experts: 256, choices: 8, kind: 'sigmoid', normalize: true, scale: 2.5, biased: true, groups: { count: 8, top: 4 } }, // prettier-ignore
  { name: 'groups of two', experts: 12, choices: 3, kind: 'sigmoid', groups: { count: 6, top: 2 }, biased: true },
  { name: 'one group', experts: 9, choices: 8, kind: 'sigmoid', scale: 0.5 },
  { name: 'all of one', experts: 1, choices: 1, kind: 'softmax' },
  { name: 'all of five', experts: 5, choices: 5, kind: 'softmax_of_chosen', scale: 2 },
  { name: 'odd', experts: 37, choices: 7, kind: 'softmax', normalize: true },
  { name: 'many choices', experts: 64, choices: 32, kind: 'softmax' },
];

/** Logits with ties, which the lowest index wins. */
function logitsOf(backend: Backend, rows: number, count: number, dtype: FloatDType): Tensor {
  const source = numbers(rows * 31 + count);
  const values = Float32Array.from({ length: rows * count }, () => Math.round(source.normal() * 16) / 16);
  return backend.tensor(values, [rows, count], dtype);
}

function routed(backend: Backend, { name: _, experts: count, biased, ...options }: RouteCase, logits: Tensor): Routing {
  const bias = biased ? backend.tensor(numbers(count).normals(count, 0.1), [count], 'f32') : undefined;
  return route(logits, { ...options, bias });
}

const routes: ConformanceCase[] = routeCases.flatMap((setting) => [
  ...[0, 1, 5, 65].map((rows) => ({
    name: `route ${setting.name}, rows ${rows}`,
    run: async (context: Conformance) => {
      const make = (pick: 'chosen' | 'scores') => (backend: Backend) =>
        routed(backend, setting, logitsOf(backend, rows, setting.experts, context.dtype))[pick];
      await context.same(make('chosen'), { exact: true, label: 'chosen' });
      await context.same(make('scores'), { tolerance: 2e-6, label: 'scores' });
    },
  })),
  {
    name: `route ${setting.name}: broken logits give -1 and NaN`,
    run: async ({ backend, dtype }: Conformance) => {
      const last = setting.experts - 1;
      const rows: readonly ((i: number) => number)[] = [
        (i) => i / 64,
        (i) => (i === last ? NaN : i / 64),
        (i) => (i === 0 ? Infinity : i / 64),
        () => -Infinity,
        (i) => (i === 0 ? NaN : -Infinity),
        (i) => -i / 64,
      ];
      const values = Float32Array.from(
        rows.flatMap((row) => Array.from({ length: setting.experts }, (_, i) => row(i))),
      );
      const result = backend.scope(() => {
        const { chosen, scores } = routed(
          backend,
          setting,
          backend.tensor(values, [rows.length, setting.experts], dtype),
        );
        return [chosen, scores];
      });
      const [chosen, scores] = await Promise.all(result.map(async (tensor) => Array.from((await tensor.data()) as Float32Array))); // prettier-ignore
      for (const tensor of result) tensor.dispose();
      for (const [at, expert] of chosen.entries()) {
        const row = Math.floor(at / setting.choices);
        const broken = row > 0 && row < rows.length - 1;
        if (broken !== (expert === -1) || broken !== Number.isNaN(scores[at]) || expert > last)
          fail(`row ${row} goes to expert ${expert} with ${scores[at]}`);
      }
    },
  },
]);

// ---- products

interface Layer {
  readonly experts: number;
  readonly hidden: number;
  readonly width: number;
  readonly choices: number;
  readonly biased?: boolean;
  readonly residual?: boolean;
  readonly fusion?: Partial<ExpertFusion>;
}

/** Which experts the rows go to. */
type Spread = 'random' | 'one' | 'few';

function chosenOf({ experts: count, choices }: Layer, rows: number, spread: Spread): Int32Array {
  const source = numbers(rows + 7 * choices);
  return Int32Array.from({ length: rows * choices }, (_, at) => {
    const j = at % choices;
    if (spread === 'one') return j;
    const step = spread === 'few' ? 1 : source.below(count);
    return spread === 'few' ? (Math.floor(at / choices) + j * step) % Math.min(count, choices + 1) : (step + j) % count;
  });
}

function layerOf(backend: Backend, layer: Layer, format: Quantize, dtype: FloatDType): ExpertLayer {
  const { experts: count, hidden, width, biased } = layer;
  const source = numbers(hidden * width + count);
  const list = (n: number, k: number): LinearPart[] =>
    Array.from({ length: count }, () => ({
      weight: own(carried(backend, source.normals(n * k, k ** -0.5), [n, k], format, dtype)),
      bias: biased ? backend.tensor(source.normals(n), [n], dtype) : undefined,
    }));
  return { gate: list(width, hidden), up: list(width, hidden), down: list(hidden, width) };
}

function run(
  backend: Backend,
  layer: Layer,
  format: Quantize,
  rows: number,
  spread: Spread,
  dtype: FloatDType,
): Tensor {
  const { hidden, choices, residual, fusion } = layer;
  const source = numbers(rows + hidden);
  const weights = layerOf(backend, layer, format, dtype);
  const x = backend.tensor(source.normals(rows * hidden), [rows, hidden], dtype);
  const routing = {
    chosen: backend.tensor(chosenOf(layer, rows, spread), [rows, choices], 'i32'),
    scores: backend.tensor(Float32Array.from({ length: rows * choices }, source.uniform), [rows, choices], 'f32'),
  };
  const added = residual ? backend.tensor(source.normals(rows * hidden), [rows, hidden], dtype) : undefined;
  return experts(x, routing, weights, { activation: 'silu', ...fusion, residual: added });
}

type Rows = readonly (readonly [rows: number, spread: Spread])[];

const layers: readonly Layer[] = [
  { experts: 4, hidden: 64, width: 32, choices: 2, residual: true },
  { experts: 6, hidden: 128, width: 64, choices: 1 },
  { experts: 5, hidden: 96, width: 40, choices: 3, biased: true, residual: true, fusion: { activation: 'quick_gelu', limit: 1.5, upOffset: 1 } }, // prettier-ignore
  { experts: 9, hidden: 130, width: 37, choices: 8, residual: true },
  { experts: 3, hidden: 256, width: 192, choices: 2, residual: true },
];

const allRows: Rows = [
  [0, 'random'],
  [1, 'random'],
  [2, 'one'],
  [7, 'few'],
  [17, 'random'],
  [65, 'one'],
  [65, 'random'],
];

/** All of them for the first layer, some for the others. */
const rowsOf = (index: number): Rows => (index === 0 ? allRows : [allRows[1], allRows[index % 2 ? 4 : 3]]);

/** Two products one after the other, with int8 rows quantized between them. */
const tolerances: Readonly<Record<string, number>> = { int8: 0.02, 'int8 threshold 0': 0.02 };
const tolerance = (name: string, dtype: FloatDType): number =>
  Math.max(tolerances[name] ?? 0, { f32: 1e-5, f16: 2e-3, bf16: 1.6e-2 }[dtype]);

const products: ConformanceCase[] = Object.entries(formats).flatMap(([name, format]) =>
  layers.flatMap((layer, index) =>
    rowsOf(index).map(([rows, spread]) => ({
      name: `experts ${name} ${layer.experts} of ${layer.hidden} x ${layer.width}, ${layer.choices} chosen, rows ${rows} ${spread}`,
      run: (context: Conformance) =>
        context.same((backend) => run(backend, layer, format, rows, spread, context.dtype), {
          tolerance: tolerance(name, context.dtype),
        }),
    })),
  ),
);

const eagerly: ConformanceCase[] = ['dense', 'nf4'].flatMap((name) =>
  [1, 9].map((rows) => ({
    name: `eager experts ${name}, rows ${rows}`,
    run: (context: Conformance) =>
      context.same(
        (backend) =>
          backend.lowered(eager(context.dtype), () =>
            run(backend, layers[2], formats[name], rows, 'random', context.dtype),
          ),
        { tolerance: tolerance(name, context.dtype) },
      ),
  })),
);

/** A row's result is the same whatever its neighbours are, and wherever they go. */
const independence: ConformanceCase[] = Object.entries(formats).flatMap(([name, format]) =>
  [
    { experts: 6, hidden: 128, width: 64, choices: 2, rows: 4 },
    { experts: 6, hidden: 128, width: 64, choices: 2, rows: 70 },
    { experts: 5, hidden: 130, width: 37, choices: 3, rows: 9 },
  ].map(({ rows, ...layer }) => ({
    name: `experts ${name} of ${layer.hidden}, rows ${rows}: rows are independent of neighbours`,
    run: async ({ backend, dtype }: Conformance) => {
      const first = async (spread: Spread, scale: number) => {
        const result = backend.scope(() => {
          const x = numbers(3).normals(rows * layer.hidden);
          for (let i = layer.hidden; i < x.length; i++) x[i] *= scale;
          const chosen = chosenOf(layer, rows, spread);
          for (let j = 0; j < layer.choices; j++) chosen[j] = layer.experts - 1 - j;
          const scores = Float32Array.from(chosen, (_, i) => 1 / (2 + (i % layer.choices)));
          const shape = [rows, layer.choices];
          const routing = {
            chosen: backend.tensor(chosen, shape, 'i32'),
            scores: backend.tensor(scores, shape, 'f32'),
          };
          const weights = layerOf(backend, layer, format, dtype);
          return experts(backend.tensor(x, [rows, layer.hidden], dtype), routing, weights, { activation: 'silu' });
        });
        const data = (await result.data()) as Float32Array;
        result.dispose();
        return data.slice(0, layer.hidden);
      };
      const calm = await first('one', 1);
      assertEqual(await first('random', 50), calm, 'the first row among others');
      assertEqual(await first('few', 0.1), calm, 'the first row among others');
    },
  })),
);

const broken: ConformanceCase[] = [1, 5, 40].map((rows) => ({
  name: `experts: a choice of -1 makes its row NaN, and no other, rows ${rows}`,
  run: async ({ backend, dtype }: Conformance) => {
    const layer = { experts: 4, hidden: 64, width: 64, choices: 2 };
    const result = backend.scope(() => {
      const weights = layerOf(backend, layer, formats.nf4, dtype);
      const chosen = chosenOf(layer, rows, 'few');
      chosen.fill(-1, (rows - 1) * 2);
      const shape = [rows, 2];
      const routing = {
        chosen: backend.tensor(chosen, shape, 'i32'),
        scores: backend.tensor(new Float32Array(rows * 2).fill(0.5), shape, 'f32'),
      };
      const x = backend.tensor(numbers(rows).normals(rows * 64), [rows, 64], dtype);
      return experts(x, routing, weights, { activation: 'silu' });
    });
    const data = (await result.data()) as Float32Array;
    result.dispose();
    for (const [at, value] of data.entries())
      if (Number.isNaN(value) !== at >= (rows - 1) * 64) fail(`row ${Math.floor(at / 64)} has ${value}`);
  },
}));

/** A program chooses anew at each replay. */
const recorded: ConformanceCase = {
  name: 'experts: a program follows what is chosen at each replay',
  run: async ({ backend, dtype }: Conformance) => {
    const layer = { experts: 6, hidden: 64, width: 64, choices: 2 };
    const weights = layerOf(backend, layer, formats.nf4, dtype);
    const x = backend.tensor(numbers(1).normals(64), [1, 64], dtype).keep();
    const logits = backend.tensor(new Float32Array(6), [1, 6], dtype).keep();
    const out = backend.empty([1, 64], dtype).keep();
    const step = () => {
      const y = experts(x, route(logits, { choices: 2, kind: 'softmax' }), weights, { activation: 'silu' });
      backend.submit('copy', { src: y.ref(), out: out.ref() });
    };
    backend.scope(step);
    const program = backend.capture(step);
    try {
      const set = (first: number) =>
        backend.scope(() => {
          const row = backend.tensor([0, 1, 2, 3, 4, 5].map((i) => -Math.abs(i - first) / 4 - i / 64), [1, 6], dtype); // prettier-ignore
          backend.submit('copy', { src: row.ref(), out: logits.ref() });
        });
      for (const first of [0, 5, 2]) {
        set(first);
        backend.scope(step);
        const expected = Array.from((await out.data()) as Float32Array);
        backend.submit('fill', { out: out.ref(), value: 0 });
        program.replay();
        assertEqual(Array.from((await out.data()) as Float32Array), expected, `with expert ${first}`);
      }
    } finally {
      program.dispose();
      for (const tensor of [x, logits, out]) tensor.dispose();
      for (const { weight } of [...weights.gate, ...weights.up, ...weights.down]) disposeWeight(weight);
    }
  },
};

export const expertCases: ConformanceCase[] = [
  ...routes,
  ...products,
  ...eagerly,
  ...independence,
  ...broken,
  recorded,
];
