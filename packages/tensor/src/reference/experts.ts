// Routed experts: which experts a row goes through, and their products.
import { dtypeFromCode, type FloatDType } from '../dtype.js';
import { roundTo } from '../core/half.js';
import { routeKinds, type CommandArgs } from '../driver/schema.js';
import { products } from './linear.js';
import { activations, gated, softmaxOf } from './maths.js';
import type { ReferenceMemory } from './memory.js';

type Route = CommandArgs<'route'>;
type ExpertLinear = CommandArgs<'expertLinear'>;

/** Indices of the `count` largest values, the largest first; the lowest index wins ties. */
const largest = (values: readonly number[], count: number): number[] =>
  values
    .map((_, i) => i)
    .sort((a, b) => values[b] - values[a] || a - b)
    .slice(0, count);

/** Keeps the values of the best groups; minus infinity elsewhere. */
function withinGroups(values: readonly number[], { groups, topGroups }: Route): readonly number[] {
  if (groups === 1) return values;
  const size = values.length / groups;
  const sums = Array.from({ length: groups }, (_, group) => {
    const own = values.slice(group * size, (group + 1) * size);
    const [first, second] = largest(own, 2);
    return own[first] + own[second];
  });
  const kept = largest(sums, topGroups);
  return values.map((value, i) => (kept.includes(Math.floor(i / size)) ? value : -Infinity));
}

function choose(logits: readonly number[], bias: readonly number[] | undefined, args: Route) {
  const { choices, kind } = args;
  if (kind === routeKinds.sigmoid) {
    const sigmoids = logits.map((logit) => 1 / (1 + Math.exp(-logit)));
    const wanted = sigmoids.map((value, i) => value + (bias?.[i] ?? 0));
    const chosen = largest(withinGroups(wanted, args), choices);
    return { chosen, scores: chosen.map((i) => sigmoids[i]) };
  }
  const chosen = largest(logits, choices);
  const over = kind === routeKinds.softmax ? softmaxOf(logits) : softmaxOf(chosen.map((i) => logits[i]));
  return { chosen, scores: kind === routeKinds.softmax ? chosen.map((i) => over[i]) : over };
}

const isBroken = (row: readonly number[]): boolean =>
  row.some((value) => Number.isNaN(value) || value === Infinity) || row.every((value) => value === -Infinity);

export function route(args: Route, memory: ReferenceMemory): void {
  const { rows, experts, choices, normalize, scale, kind } = args;
  const [logits, chosen, scores] = [args.logits, args.chosen, args.scores].map((tensor) => memory.cells(tensor));
  const biases = args.bias && memory.cells(args.bias);
  const bias = biases && Array.from({ length: experts }, (_, i) => biases.get(i));
  for (let row = 0; row < rows; row++) {
    const values = Array.from({ length: experts }, (_, i) => logits.get(row * experts + i));
    const broken = isBroken(values);
    const choice = choose(values, bias, args);
    const sum = choice.scores.reduce((a, b) => a + b, kind === routeKinds.sigmoid ? 1e-20 : 0);
    for (let j = 0; j < choices; j++) {
      chosen.set(row * choices + j, broken ? -1 : choice.chosen[j]);
      scores.set(row * choices + j, broken ? NaN : (choice.scores[j] / (normalize ? sum : 1)) * scale);
    }
  }
}

/** The columns of expert `e` in row `row` of x, by number of part and column. */
function expertColumns(args: ExpertLinear, memory: ReferenceMemory, xRows: number) {
  const x = memory.cells(args.x);
  const made = new Map<number, (row: number, column: number) => number>();
  const make = (index: number) => {
    const own = args.parts[index];
    const bias = own.bias && memory.cells(own.bias);
    const product = products[args.kind](x, args.k, { ...args, ...own }, memory, xRows);
    return (row: number, column: number) => product(row, column) + (bias?.get(column) ?? 0);
  };
  return (index: number, row: number, column: number): number => {
    let part = made.get(index);
    if (!part) made.set(index, (part = make(index)));
    return part(row, column);
  };
}

export function expertLinear(args: ExpertLinear, memory: ReferenceMemory): void {
  const { rows, choices, experts, n } = args;
  const [chosen, out] = [memory.cells(args.chosen), memory.cells(args.out)];
  const scores = args.scores && memory.cells(args.scores);
  const residual = args.residual && memory.cells(args.residual);
  const columns = expertColumns(args, memory, scores ? rows * choices : rows);
  const perExpert = args.parts.length / experts;
  const act = activations[args.activation];
  const expertOf = (at: number): number => {
    const expert = chosen.get(at);
    if (expert < -1 || expert >= experts) throw new Error(`expert ${expert} is not one of the ${experts} experts`);
    return expert;
  };
  for (let row = 0; row < rows; row++) {
    const own = Array.from({ length: choices }, (_, j) => expertOf(row * choices + j));
    if (scores) {
      for (let column = 0; column < n; column++) {
        let sum = 0;
        own.forEach((expert, j) => {
          const at = row * choices + j;
          sum += scores.get(at) * (expert < 0 ? NaN : columns(expert, at, column));
        });
        out.set(row * n + column, sum + (residual?.get(row * n + column) ?? 0));
      }
      continue;
    }
    const width = args.gated ? n : n * perExpert;
    const value = (expert: number, column: number): number => {
      if (expert < 0) return NaN;
      const first = columns(expert * perExpert + Math.floor(column / n), row, column % n);
      if (!args.gated) return act(first);
      return gated({ ...args, kind: args.activation }, first, columns(expert * perExpert + 1, row, column));
    };
    own.forEach((expert, j) => {
      for (let column = 0; column < width; column++)
        out.set((row * choices + j) * width + column, value(expert, column));
    });
  }
}

export function mixChoices(args: CommandArgs<'mixChoices'>, memory: ReferenceMemory): void {
  const { rows, choices, width, dtype } = args;
  const [x, scores, out] = [args.x, args.scores, args.out].map((tensor) => memory.cells(tensor));
  const round = (value: number) => roundTo(dtypeFromCode(dtype) as FloatDType, value);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < width; column++) {
      let sum = 0;
      for (let j = 0; j < choices; j++) {
        const at = row * choices + j;
        sum += round(scores.get(at) * x.get(at * width + column));
      }
      out.set(row * width + column, sum);
    }
  }
}
