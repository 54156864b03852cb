import {
  type ModuleNode,
  type ModuleTree,
  type Node,
  type TensorNode,
  type Tree,
  type Unsplittable,
  isLayer,
  readTree,
  rootItems,
  unsplittable,
} from './tree.js';

/** How the tensors of a tree are measured. */
export interface Measure {
  /** Bytes of one tensor. */
  bytes: (tensor: TensorNode) => number;
  /** Parameters that are the same tensor as another, and are not counted. */
  skip: ReadonlySet<string>;
}

/**
 * Bytes by path, of every module that holds something counted and of every counted tensor; `''` is all. In the order in
 * which parameters, then buffers, are met; each path after those above it.
 */
export type Sizes = Map<string, number>;

/** Sizes of all modules and tensors of a linked tree. Cost: linear. */
export const measureTree = (tree: Tree, measure: Measure): Sizes => {
  const sizes: Sizes = new Map([['', 0]]);
  const owned = new Map<ModuleNode, number>();
  for (const tensors of [tree.parameters, tree.buffers]) {
    for (const tensor of tensors.values()) {
      if (measure.skip.has(tensor.path)) continue;
      const bytes = measure.bytes(tensor);
      const before = owned.get(tensor.owner);
      if (before === undefined) listAbove(tensor.owner, sizes);
      owned.set(tensor.owner, (before ?? 0) + bytes);
      sizes.set(tensor.path, bytes);
    }
  }
  total(tree.root, owned, sizes);
  return sizes;
};

/** Gives a module and those above it their places in the order of the sizes. */
const listAbove = (module: ModuleNode, sizes: Sizes): void => {
  if (sizes.has(module.path)) return;
  if (module.parent !== null) listAbove(module.parent, sizes);
  sizes.set(module.path, 0);
};

const total = (module: ModuleNode, owned: ReadonlyMap<ModuleNode, number>, sizes: Sizes): number => {
  let bytes = owned.get(module) ?? 0;
  for (const child of module.children) bytes += total(child, owned, sizes);
  if (sizes.has(module.path)) sizes.set(module.path, bytes);
  return bytes;
};

/** Bytes of the buffers below a node. */
export const bufferBytes = (node: Node, bytes: Measure['bytes']): number => {
  if (node.kind !== 'module') return 0;
  const own = node.buffers.reduce((sum, buffer) => sum + bytes(buffer), 0);
  return node.children.reduce((sum, child) => sum + bufferBytes(child, bytes), own);
};

/** The largest layers among some nodes: their size in bytes and themselves, in order. */
export interface LargestLayers {
  size: number;
  layers: Node[];
}

/** Finds the largest layers below nodes; the answer per module is kept. */
export const layerFinder = (
  sizes: ReadonlyMap<string, number>,
  whole: Unsplittable,
): ((nodes: readonly Node[]) => LargestLayers) => {
  const known = new Map<ModuleNode, LargestLayers>();
  const below = (node: Node): LargestLayers => {
    if (isLayer(node, whole)) return { size: sizes.get(node.path) ?? 0, layers: [node] };
    const module = node as ModuleNode;
    let found = known.get(module);
    if (found === undefined) {
      found = largest(module.children);
      known.set(module, found);
    }
    return found;
  };
  const largest = (nodes: readonly Node[]): LargestLayers => {
    const all: LargestLayers = { size: 0, layers: [] };
    for (const node of nodes) {
      const { size, layers } = below(node);
      if (size < all.size) continue;
      if (size > all.size) all.layers = [];
      all.size = size;
      for (const layer of layers) all.layers.push(layer);
    }
    return all;
  };
  return largest;
};

/**
 * The largest layer of a model in bytes and the paths of all layers of that size; that much is kept free on the devices
 * that may have to hold an offloaded layer. Source: accelerate `get_max_layer_size`.
 * @param sizes bytes by path, from `computeModuleSizes`
 * @param noSplit classes that are not split. Default: those of the tree
 */
export const getMaxLayerSize = (
  tree: ModuleTree | Tree,
  sizes: Readonly<Record<string, number>> | ReadonlyMap<string, number>,
  noSplit?: readonly string[],
): { size: number; names: string[] } => {
  const linked = readTree(tree);
  const map = sizes instanceof Map ? sizes : new Map(Object.entries(sizes));
  const found = layerFinder(map, unsplittable(linked, noSplit))(rootItems(linked));
  return { size: found.size, names: found.layers.map((node) => node.path) };
};
