import fc from 'fast-check';
import type { BufferEntry, ModuleEntry, ModuleTree, ParameterEntry } from '../index.js';

const containers = ['Block', 'Layer', 'Stack', 'ModuleList'];
const shapes = [[8, 8], [16, 8], [8, 16], [32, 8], [5, 7], [3]];
const dtypes = [null, null, 'int64', 'bool', 'float16'];

/** Draws from fast-check's generators, so that a failing tree shrinks. */
export type Draw = <T>(choices: readonly T[]) => T;

/**
 * A random module tree: nested containers, linears, norms with buffers, parameters and buffers beside children, ties.
 */
const drawTree = (pick: Draw): ModuleTree => {
  const modules: ModuleEntry[] = [];
  const often = (): boolean => pick([false, false, true]);
  const leaf = (path: string): void => {
    const shape = pick(shapes);
    const parameters: ParameterEntry[] = [['weight', shape]];
    if (often()) parameters.push(['bias', [shape[0]!], pick(['float32', null])]);
    const buffers: BufferEntry[] = often() ? [['table', pick(shapes), pick(dtypes), often()]] : [];
    modules.push(pick([true, true, true, false]) ? [path, 'Linear', parameters, buffers] : [path, 'Act']);
  };
  const container = (path: string, depth: number): void => {
    const own: ParameterEntry[] = often() ? [['scale', [pick([1, 8, 40])]]] : [];
    const buffers: BufferEntry[] = often() ? [['mask', [6, 6], pick(dtypes), often()]] : [];
    modules.push([path, path === '' ? 'Model' : pick(containers), own, buffers]);
    const children = pick([1, 2, 3, 4, 5]);
    for (let child = 0; child < children; child++) {
      const name = `${path === '' ? '' : `${path}.`}${pick(['m', 'fc', ''])}${child}`;
      if (depth < 3 && pick([true, false])) container(name, depth + 1);
      else leaf(name);
    }
  };
  container('', 0);
  return {
    modules,
    noSplit: pick([[], ['Block'], ['Block', 'Layer'], ['Stack', 'Absent']]),
    tied: drawTies(modules, pick),
  };
};

const drawTies = (modules: readonly ModuleEntry[], pick: Draw): string[][] => {
  const byShape = new Map<string, string[]>();
  for (const [path, , parameters = []] of modules) {
    for (const [name, shape, dtype = null] of parameters) {
      const key = `${JSON.stringify(shape)} ${dtype ?? ''}`;
      byShape.set(key, [...(byShape.get(key) ?? []), path === '' ? name : `${path}.${name}`]);
    }
  }
  return [...byShape.values()]
    .map((names) => names.filter(() => pick([true, false, false])))
    .filter((names) => names.length > 1 && pick([true, false]))
    .slice(0, 3);
};

const drawer =
  (numbers: Iterator<number>): Draw =>
  (choices) =>
    choices[(numbers.next().value as number) % choices.length]!;

function* cycle(values: readonly number[]): Generator<number> {
  for (let index = 0; ; index++) yield values[index % values.length]! + Math.floor(index / values.length);
}

/** Random trees of up to a few hundred tensors. */
export const trees: fc.Arbitrary<ModuleTree> = fc
  .array(fc.nat({ max: 1_000_000 }), { minLength: 12, maxLength: 60 })
  .map((numbers) => drawTree(drawer(cycle(numbers))));

const permille = fc
  .oneof({ weight: 1, arbitrary: fc.constant(0) }, { weight: 9, arbitrary: fc.integer({ min: 1, max: 1200 }) })
  .map((value) => value / 1000);

/** Shares of a model's size for GPUs (with or without gaps in their ids), the host, and nothing for disk. */
export const shares = fc.record({
  gpus: fc.array(fc.record({ gap: fc.constantFrom(0, 0, 0, 1, 3), share: permille }), { maxLength: 4 }),
  cpu: fc.option(permille),
});

/** Budgets in bytes from shares. */
export const budgetsOf = (
  { gpus, cpu }: { gpus: readonly { gap: number; share: number }[]; cpu: number | null },
  size: number,
): [number | string, number][] => {
  const budgets: [number | string, number][] = [];
  let id = -1;
  for (const { gap, share } of gpus) {
    id += 1 + gap;
    budgets.push([id, Math.floor(share * size)]);
  }
  if (cpu !== null) budgets.push(['cpu', Math.floor(cpu * size)]);
  return budgets;
};
