import type { Backend } from '../core/backend.js';
import { add, fill } from '../ops/elementwise.js';
import { advance, sample, type SamplingState } from '../ops/sampling.js';
import { filteredProbabilities } from '../reference/sampling.js';
import { numbers, type ConformanceCase } from './harness.js';

interface Row {
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  penalty?: number;
  doSample?: boolean;
}

function state(backend: Backend, rows: readonly Row[], counter: number, history?: readonly number[]): SamplingState {
  const count = rows.length;
  return {
    floats: backend.tensor(
      rows.flatMap((row) => [row.temperature ?? 1, row.topP ?? 1, row.minP ?? 0, row.penalty ?? 1]),
      [count, 4],
      'f32',
    ),
    ints: backend.tensor(
      rows.flatMap((row, i) => [Number(row.doSample ?? true), row.topK ?? 0, 1234 + i, 99]),
      [count, 4],
      'i32',
    ),
    counters: backend.tensor(
      rows.map(() => counter),
      [count],
      'i32',
    ),
    history:
      history &&
      backend.tensor(
        rows.flatMap(() => history),
        [count, history.length],
        'i32',
      ),
    historyLengths:
      history &&
      backend.tensor(
        rows.map(() => history.length),
        [count],
        'i32',
      ),
  };
}

const choices: Record<string, Row> = {
  greedy: { doSample: false },
  'greedy with penalty': { doSample: false, penalty: 1.7 },
  plain: {},
  temperature: { temperature: 0.6 },
  'top-k': { topK: 5 },
  'top-p': { topP: 0.7 },
  'min-p': { minP: 0.1 },
  all: { temperature: 0.8, topK: 20, topP: 0.9, minP: 0.02, penalty: 1.3 },
};

/**
 * The same draws as the reference: all rows of a batch, at several counters. Draws at a rounding edge may differ; fewer
 * than 1 in 100 do.
 */
const draws: ConformanceCase[] = [7, 300, 4096, 32000].map((width) => ({
  name: `sample from ${width} tokens, every option`,
  run: async ({ backend, dtype }) => {
    const { referenceBackend } = await import('../reference/driver.js');
    const rows = Object.values(choices);
    const counters = [0, 1, 2, 77, 5000];
    const outcome = async (on: Backend) => {
      const ids: number[] = [];
      for (const counter of counters) {
        const picked = on.scope(() => {
          const logits = numbers(width + counter).normals(rows.length * width, 3);
          return sample(on.tensor(logits, [rows.length, width], dtype), state(on, rows, counter, [1, 5, 3, 1]));
        });
        ids.push(...(await picked.data()));
        picked.dispose();
      }
      return ids;
    };
    const [actual, expected] = [await outcome(backend), await outcome(referenceBackend())];
    const different = actual.filter((id, i) => id !== expected[i]).length;
    if (different > Math.max(1, actual.length / 100))
      throw new Error(`${different} of ${actual.length} draws differ from the reference`);
    counters.forEach((_, i) => {
      if (actual[i * rows.length] !== expected[i * rows.length]) throw new Error('a greedy row differs');
    });
  },
}));

/**
 * Chi-squared of 4,000 draws from 12 tokens against the exact distribution; its 99.99 % quantile with 11 degrees of
 * freedom is 37.4.
 */
const distribution: ConformanceCase = {
  name: 'sample: draws follow the distribution',
  run: async ({ backend, dtype }) => {
    const logits = [0, 1, 2, 0.5, -1, 0.25, 1.5, 1.75, -2, 0.75, 1, 0];
    const row: Row = { temperature: 1.25 };
    const repeats = 4000;
    const rows = Array.from({ length: 100 }, () => row);
    const counts = logits.map(() => 0);
    for (let counter = 0; counter < repeats / rows.length; counter++) {
      const picked = backend.scope(() =>
        sample(
          backend.tensor(
            rows.flatMap(() => logits),
            [rows.length, logits.length],
            dtype,
          ),
          state(backend, rows, counter),
        ),
      );
      for (const id of await picked.data()) counts[id] += 1;
      picked.dispose();
    }
    const expected = filteredProbabilities(logits, { temperature: 1.25, topK: 0, topP: 1, minP: 0 });
    const chi = counts.reduce(
      (sum, count, i) => sum + (count - repeats * expected[i]) ** 2 / (repeats * expected[i]),
      0,
    );
    if (chi > 37.4) throw new Error(`chi-squared ${chi}`);
  },
};

const advancing: ConformanceCase = {
  name: 'advance',
  run: (context) =>
    context.same(
      (backend) => {
        const i32 = (values: number[]) => backend.tensor(values, [values.length], 'i32');
        const target = { tokenIds: i32([1, 2, 3]), positions: i32([4, 5, 6]), contextLengths: i32([5, 6, 7]) };
        const sampling = { ...state(backend, [{}, {}, {}], 3, [9, 9, 9, 9]), historyLengths: i32([2, 3, 4]) };
        advance(i32([70, 80, 90]), target, sampling);
        return [...Object.values(target), sampling.counters, sampling.history!, sampling.historyLengths];
      },
      { exact: true },
    ),
};

const capture: ConformanceCase = {
  name: 'capture: a program repeats its commands on changed inputs',
  run: async ({ backend, dtype }) => {
    const x = backend.tensor([1, 2, 3], [3], dtype).keep();
    const out = backend.empty([3], dtype).keep();
    const step = () => {
      const doubled = add(x, x);
      backend.submit('add', { a: doubled.ref(), b: x.ref(), out: out.ref(), count: 3 });
      backend.submit('copy', { src: out.ref(), out: x.ref() });
    };
    const program = backend.capture(step);
    try {
      program.replay();
      program.replay();
      const tripledTwice = Array.from((await x.data()) as Float32Array);
      if (tripledTwice.join() !== '9,18,27') throw new Error(`got ${tripledTwice}`);
      fill(x, 2);
      program.replay();
      if (Array.from((await out.data()) as Float32Array).join() !== '6,6,6')
        throw new Error('a replay after a write is wrong');
    } finally {
      program.dispose();
      for (const tensor of [x, out]) tensor.dispose();
    }
  },
};

export const decodingCases: ConformanceCase[] = [...draws, distribution, advancing, capture];
