import { ConfigError, describeValue } from '@q/config';

/** `[name, shape, dtype]`; without a dtype (or null) the tensor has the dtype the model is built in. */
export type ParameterEntry = readonly [name: string, shape: readonly number[], dtype?: string | null];
/** `[name, shape, dtype or null, persistent]`; a buffer that is not persistent is not in the checkpoint. */
export type BufferEntry = readonly [
  name: string,
  shape: readonly number[],
  dtype?: string | null,
  persistent?: boolean,
];
/** `[path, class, parameters, buffers]`. */
export type ModuleEntry = readonly [
  path: string,
  className: string,
  parameters?: readonly ParameterEntry[],
  buffers?: readonly BufferEntry[],
];

/** What the planner knows of a model: plain data, no weights. */
export interface ModuleTree {
  /** Depth first, in registration order, the root (`''`) first. The order is the order in which modules are placed. */
  modules: readonly ModuleEntry[];
  /** Classes that must not be split over devices. Default: none. */
  noSplit?: readonly string[];
  /** Groups of parameters that are one tensor. Default: none. */
  tied?: readonly (readonly string[])[];
  /** `{ target: source }` of tied parameters. Default: from `tied`, the source being the first in `modules`. */
  tiedWeights?: Readonly<Record<string, string>>;
  /** Modules (by one component of their path) that stay unquantized. Default: none. */
  keepInFp32?: readonly string[];
  /**
   * Patterns of the modules that a quantized model keeps dense unless its config names others. Default: the last
   * parameter and the output embeddings, as in Python.
   */
  keepDense?: readonly string[];
  /** Classes whose weight is quantized. Default: `Linear` and `Conv1D`. */
  linearClasses?: readonly string[];
  /** Path of the output embeddings. */
  outputEmbeddings?: string | null;
  /** Whether the config says that the embeddings are tied. Default false. */
  tieWordEmbeddings?: boolean;
}

export interface TensorNode {
  readonly kind: 'parameter' | 'buffer';
  readonly path: string;
  /** The module that owns it. */
  readonly owner: ModuleNode;
  readonly shape: readonly number[];
  /** Number of elements. */
  readonly elements: number;
  /** Null: the dtype the model is built in. */
  readonly dtype: string | null;
  readonly persistent: boolean;
}

export interface ModuleNode {
  readonly kind: 'module';
  readonly path: string;
  readonly className: string;
  /** Null for the root. */
  readonly parent: ModuleNode | null;
  readonly parameters: TensorNode[];
  readonly buffers: TensorNode[];
  readonly children: ModuleNode[];
}

export type Node = ModuleNode | TensorNode;

/** A module tree, linked and checked. */
export interface Tree {
  readonly root: ModuleNode;
  /** In the order of the entries. */
  readonly modules: ReadonlyMap<string, ModuleNode>;
  /** In the order of `named_parameters` and `named_buffers`. */
  readonly parameters: ReadonlyMap<string, TensorNode>;
  readonly buffers: ReadonlyMap<string, TensorNode>;
  readonly noSplit: ReadonlySet<string>;
  readonly tied: readonly (readonly string[])[];
  readonly tiedWeights: ReadonlyMap<string, string>;
  readonly keepInFp32: readonly string[];
  readonly linearClasses: ReadonlySet<string>;
  readonly keepDense: readonly string[] | undefined;
  readonly outputEmbeddings: string | null;
  readonly tieWordEmbeddings: boolean;
}

const invalid = (what: string, detail: Record<string, unknown>): ConfigError =>
  new ConfigError('readTree', what, {
    ...detail,
    fix: 'list every module once, parents before children, the root "" first',
  });

const join = (path: string, name: string): string => (path === '' ? name : `${path}.${name}`);

/**
 * Links a module tree given as data. Cost: linear in the number of tensors.
 * @throws ConfigError for what is no tree, a missing root, a repeated or orphaned path, a negative shape, or a tied
 *   name that is no parameter
 */
export const readTree = (source: ModuleTree | Tree): Tree => {
  if (typeof source !== 'object' || source === null || !('root' in source || Array.isArray(source.modules)))
    throw new ConfigError('readTree', `the tree is ${describeValue(source)}`, {
      why: 'it lists no modules',
      fix: 'give { modules: [[path, class, parameters], ...] }, or the tree of a config',
    });
  if ('root' in source) return source;
  const { modules, parameters, buffers } = linkModules(source.modules);
  const root = modules.get('');
  if (root === undefined) throw invalid('there is no root module', { modules: source.modules.length });
  const tied = (source.tied ?? []).filter((group) => group.length > 1);
  const tiedWeights = new Map(
    source.tiedWeights === undefined ? firstSources(tied, parameters) : Object.entries(source.tiedWeights),
  );
  for (const name of [...tied.flat(), ...tiedWeights.keys(), ...tiedWeights.values()]) {
    if (!parameters.has(name)) throw invalid('a tied name is not a parameter', { name });
  }
  const { noSplit = [], keepInFp32 = [], keepDense, outputEmbeddings = null, tieWordEmbeddings = false } = source;
  const { linearClasses = ['Linear', 'Conv1D'] } = source;
  const classes = { noSplit: new Set(noSplit), linearClasses: new Set(linearClasses) };
  const settings = { ...classes, keepInFp32, keepDense, outputEmbeddings, tieWordEmbeddings };
  return { root, modules, parameters, buffers, tied, tiedWeights, ...settings };
};

type Linked = Pick<Tree, 'modules' | 'parameters' | 'buffers'>;

const linkModules = (entries: readonly ModuleEntry[]): Linked => {
  const modules = new Map<string, ModuleNode>();
  const parameters = new Map<string, TensorNode>();
  const buffers = new Map<string, TensorNode>();
  let previous: ModuleNode | null = null;
  for (const [path, className, ownParameters = [], ownBuffers = []] of entries) {
    if (modules.has(path)) throw invalid('a module is listed twice', { path });
    const parent = path === '' ? null : parentOf(path, previous, modules);
    if (parent === undefined) throw invalid('a module comes before its parent', { path });
    const node: ModuleNode = { kind: 'module', path, className, parent, parameters: [], buffers: [], children: [] };
    parent?.children.push(node);
    previous = node;
    modules.set(path, node);
    for (const entry of ownParameters) addTensor(node, parameters, tensorNode('parameter', node, entry));
    for (const entry of ownBuffers) {
      const buffer = tensorNode('buffer', node, entry);
      if (parameters.has(buffer.path)) throw invalid('a tensor is listed twice', { path: buffer.path });
      addTensor(node, buffers, buffer);
    }
  }
  return { modules, parameters, buffers };
};

const tensorNode = (
  kind: TensorNode['kind'],
  owner: ModuleNode,
  [name, shape, dtype = null, persistent = true]: BufferEntry,
): TensorNode => {
  const path = join(owner.path, name);
  return { kind, path, owner, shape, elements: elementsOf(path, shape), dtype, persistent };
};

const addTensor = (owner: ModuleNode, all: Map<string, TensorNode>, node: TensorNode): void => {
  if (all.has(node.path)) throw invalid('a tensor is listed twice', { path: node.path });
  all.set(node.path, node);
  (node.kind === 'parameter' ? owner.parameters : owner.buffers).push(node);
};

/** Number of elements of a shape. */
const elementsOf = (path: string, shape: readonly number[]): number => {
  let elements = 1;
  for (const size of shape) {
    if (!Number.isInteger(size) || size < 0) throw invalid('a shape is not made of sizes', { path, shape });
    elements *= size;
  }
  return elements;
};

/** The module above a path: most often the previous module or one above it. */
const parentOf = (
  path: string,
  previous: ModuleNode | null,
  modules: ReadonlyMap<string, ModuleNode>,
): ModuleNode | undefined => {
  const length = Math.max(0, path.lastIndexOf('.'));
  for (let module = previous; module !== null; module = module.parent) {
    if (module.path.length === length && path.startsWith(module.path)) return module;
  }
  return modules.get(path.slice(0, length));
};

const firstSources = (tied: Tree['tied'], parameters: Tree['parameters']): [string, string][] =>
  inOrder(tied, parameters).flatMap(([source, ...targets]) =>
    targets.map((target): [string, string] => [target, source!]),
  );

/** The groups, each in the order of placement. */
const inOrder = (tied: Tree['tied'], parameters: Tree['parameters']): string[][] => {
  const position = new Map<string, number>(tied.flat().map((name) => [name, Infinity]));
  if (position.size === 0) return [];
  let index = 0;
  for (const name of parameters.keys()) {
    if (position.has(name)) position.set(name, index++);
  }
  return tied.map((group) => [...group].sort((a, b) => position.get(a)! - position.get(b)!));
};

/** The names of each group after the first in the order of placement: they are the same tensor as the first. */
export const repeatedParameters = (tree: Tree): Set<string> =>
  new Set(inOrder(tree.tied, tree.parameters).flatMap((group) => group.slice(1)));

/** Parts of the root that are treated first: its own parameters, its children, its own buffers. */
export const rootItems = (tree: Tree): Node[] => [...tree.root.parameters, ...tree.root.children, ...tree.root.buffers];

/**
 * The parts of a module, in the order in which they take its place. Python forgets the module's own buffers; `strict`
 * does not.
 */
export const partsOf = (node: Node, strict: boolean): Node[] =>
  node.kind === 'module' ? [...node.parameters, ...(strict ? node.buffers : []), ...node.children] : [];

/** Modules that stay whole: those of some classes, and some by path. */
export interface Unsplittable {
  classes: ReadonlySet<string>;
  paths: ReadonlySet<string>;
}

/** Modules of these classes stay whole; by default those of the tree's `noSplit`. */
export const unsplittable = (tree: Tree, classes?: readonly string[], paths: Iterable<string> = []): Unsplittable => ({
  classes: classes === undefined ? tree.noSplit : new Set(classes),
  paths: new Set(paths),
});

/** A layer is what is never split: a tensor, a module without modules inside, or one that must stay whole. */
export const isLayer = (node: Node, whole: Unsplittable): boolean =>
  node.kind !== 'module' ||
  node.children.length === 0 ||
  whole.classes.has(node.className) ||
  whole.paths.has(node.path);
