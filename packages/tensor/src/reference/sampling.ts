import type { CommandArgs } from '../driver/schema.js';
import { philox, softmaxOf } from './maths.js';
import type { Cells, ReferenceMemory } from './memory.js';

const rowOf = (cells: Cells, row: number, width: number) =>
  Array.from({ length: width }, (_, i) => cells.get(row * width + i));

/** What a row of broken logits gives instead of a token; embedding makes zeros of it. */
export const noToken = -1;

/** Lowest index of the largest value; {@link noToken} when one is NaN or infinite, or all are minus infinity. */
export function argmaxOf(values: readonly number[]): number {
  const best = values.reduce((most, value, i) => (value > values[most] ? i : most), 0);
  return Number.isFinite(values[best]) && !values.some(Number.isNaN) ? best : noToken;
}

function penalise(scores: number[], history: readonly number[], penalty: number): void {
  for (const id of new Set(history))
    if (id !== noToken) scores[id] = scores[id] < 0 ? scores[id] * penalty : scores[id] / penalty;
}

/** The smallest score kept by top-k; ties with it stay. */
function topK(scores: number[], k: number): void {
  if (k <= 0 || k >= scores.length) return;
  const least = [...scores].sort((a, b) => b - a)[k - 1];
  scores.forEach((score, i) => score < least && (scores[i] = -Infinity));
}

/** Keeps the most likely tokens until their probabilities reach p; ties with the last one stay. */
function topP(scores: number[], p: number): void {
  if (p >= 1) return;
  const probabilities = softmaxOf(scores);
  const order = [...probabilities].sort((a, b) => b - a);
  let sum = 0;
  let least = order[0];
  for (const probability of order) {
    if (sum >= p) break;
    least = probability;
    sum += probability;
  }
  probabilities.forEach((probability, i) => probability < least && (scores[i] = -Infinity));
}

function minP(scores: number[], p: number): void {
  if (p <= 0) return;
  const probabilities = softmaxOf(scores);
  const least = p * probabilities.reduce((most, probability) => Math.max(most, probability));
  probabilities.forEach((probability, i) => probability < least && (scores[i] = -Infinity));
}

/** Probabilities from which a sampling row draws: for distribution tests of other drivers. */
export function filteredProbabilities(
  logits: readonly number[],
  options: { temperature: number; topK: number; topP: number; minP: number },
): number[] {
  const scores = logits.map((value) => value / options.temperature);
  topK(scores, options.topK);
  topP(scores, options.topP);
  minP(scores, options.minP);
  return softmaxOf(scores);
}

export function sample(args: CommandArgs<'sample'>, memory: ReferenceMemory): void {
  const [logits, out, floats, ints, counters] = [args.logits, args.out, args.floats, args.ints, args.counters].map(
    (ref) => memory.cells(ref),
  );
  const history = args.history && memory.cells(args.history);
  const lengths = args.historyLengths && memory.cells(args.historyLengths);
  for (let row = 0; row < args.rows; row++) {
    const scores = rowOf(logits, row, args.width);
    const [temperature, topPOf, minPOf, penalty] = rowOf(floats, row, 4);
    const [doSample, k, seedLow, seedHigh] = rowOf(ints, row, 4);
    if (history && lengths && penalty !== 1) {
      const length = Math.min(lengths.get(row), args.historyCapacity);
      penalise(scores, rowOf(history, row, args.historyCapacity).slice(0, length), penalty);
    }
    const best = argmaxOf(scores);
    // A temperature so small that scores leave f32 puts all the mass on the largest.
    const flat = (value: number) => Number.isFinite(Math.fround(value));
    const sharp = temperature > 0 && flat(1 / temperature) && flat(scores[best] / temperature);
    if (!doSample || best === noToken || !sharp) {
      out.set(row, best);
      continue;
    }
    const probabilities = filteredProbabilities(scores, { temperature, topK: k, topP: topPOf, minP: minPOf });
    const u = (philox([counters.get(row), 0, 0, 0], [seedLow, seedHigh])[0] + 0.5) / 2 ** 32;
    let cumulative = 0;
    let chosen = best;
    for (let i = 0; i < probabilities.length; i++) {
      cumulative += probabilities[i];
      if (cumulative > u) {
        chosen = i;
        break;
      }
    }
    out.set(row, chosen);
  }
}

export function advance(args: CommandArgs<'advance'>, memory: ReferenceMemory): void {
  const [sampled, ids, positions, lengths, counters] = [
    args.sampled,
    args.tokenIds,
    args.positions,
    args.contextLengths,
    args.counters,
  ].map((ref) => memory.cells(ref));
  const history = args.history && memory.cells(args.history);
  const historyLengths = args.historyLengths && memory.cells(args.historyLengths);
  for (let row = 0; row < args.rows; row++) {
    ids.set(row, sampled.get(row));
    for (const counter of [positions, lengths, counters]) counter.set(row, counter.get(row) + 1);
    if (!historyLengths) continue;
    const at = historyLengths.get(row);
    if (history && at < args.historyCapacity) history.set(row * args.historyCapacity + at, sampled.get(row));
    historyLengths.set(row, at + 1);
  }
}
