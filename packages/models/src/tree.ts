import { dtypeBytes } from '@q/config';
import { Linear } from './nn/linear.js';
import type { Module } from './nn/module.js';
import type { Task } from './architecture.js';
import { architectureOf, buildModel, taskOf, tiesOf, type ModelConfig } from './registry.js';

type TensorEntry = readonly [name: string, shape: readonly number[]];
type BufferEntry = readonly [name: string, shape: readonly number[], dtype: string, persistent: boolean];

/** What a placement planner knows of a model: plain data, no weights. */
export interface ModelTree {
  /** Depth first, in registration order: path, class, parameters, buffers. */
  readonly modules: readonly (readonly [
    path: string,
    className: string,
    parameters: readonly TensorEntry[],
    buffers: readonly BufferEntry[],
  ])[];
  readonly noSplit: readonly string[];
  /** Modules that a quantized model keeps dense unless its config names others. */
  readonly keepDense: readonly string[];
  readonly keepInFp32: readonly string[];
  /** Classes whose weight can be quantized. */
  readonly linearClasses: readonly string[];
  /** Target to source of parameters that share memory. */
  readonly tiedWeights: Readonly<Record<string, string>>;
  readonly tied: readonly (readonly string[])[];
  readonly outputEmbeddings: string;
  readonly tieWordEmbeddings: boolean;
}

/** The modules of a model with the shapes of their tensors. */
export function moduleTree(model: Module): ModelTree['modules'] {
  return [...model.walk()].map(({ path, module }) => {
    const weight: TensorEntry[] = module instanceof Linear ? [['weight', module.pythonShape]] : [];
    const stored = [...module.parameters];
    const parameters = stored
      .filter(([, { options }]) => !options.isBuffer)
      .map(([name, { shape }]): TensorEntry => [name, shape]);
    const persistent = stored
      .filter(([, { options }]) => options.isBuffer)
      .map(([name, { shape }]): BufferEntry => [name, shape, 'float32', true]);
    const computed = [...module.buffers].map(([name, { shape, dtype }]): BufferEntry => [name, shape, dtype, false]);
    return [path, module.className, [...weight, ...parameters], [...persistent, ...computed]] as const;
  });
}

const linearClassesOf = (model: Module): string[] => [
  ...new Set([...model.walk()].filter(({ module }) => module instanceof Linear).map(({ module }) => module.className)),
];

/** Names that share memory, in groups. */
function groupsOf(ties: readonly (readonly [target: string, source: string])[]): string[][] {
  const groups = new Map<string, string[]>();
  for (const [target, source] of ties) groups.set(source, [...(groups.get(source) ?? [source]), target]);
  return [...groups.values()].map((names) => names.sort());
}

/**
 * The tree of a config's model, for planning; nothing is allocated.
 * @param without optional modules that the model is to lack
 * @throws UnsupportedError for an unknown architecture
 */
export function planTree(config: ModelConfig, task: Task = taskOf(config), without: readonly string[] = []): ModelTree {
  const architecture = architectureOf(config.modelType);
  const model = buildModel(config, task, without);
  const modules = moduleTree(model);
  const names = new Set(modules.flatMap(([path, , tensors]) => tensors.map(([name]) => `${path}.${name}`)));
  const ties = Object.entries(tiesOf(config)).filter((tie) => tie.every((name) => names.has(name)));
  return {
    modules,
    noSplit: architecture.noSplit,
    keepDense: architecture.keepDense,
    keepInFp32: architecture.keepInFp32 ?? [],
    linearClasses: linearClassesOf(model),
    tiedWeights: Object.fromEntries(ties),
    tied: groupsOf(ties),
    outputEmbeddings: architecture.outputEmbeddings,
    tieWordEmbeddings: config.tieWordEmbeddings,
  };
}

/** Bytes of the buffers that the Python module holds beside its parameters; they count in its memory footprint. */
export const bufferBytes = (model: Module): number =>
  [...model.walk()].reduce(
    (sum, { module }) =>
      sum +
      [...module.buffers.values()].reduce(
        (bytes, { shape, dtype }) => bytes + dtypeBytes(dtype) * shape.reduce((a, b) => a * b, 1),
        0,
      ),
    0,
  );
