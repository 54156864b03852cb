import type { Sizes } from './sizes.js';
import type { Node, Tree } from './tree.js';
import { isInside } from './types.js';
import type { Rules } from './wiring/rules.js';

/** Groups of parameters that must share a device, under the rules of a wiring. */
export const tiedGroups = (tree: Tree, rules: Rules): readonly (readonly string[])[] => {
  if (rules.ties === 'tied') return tree.tied;
  const groups = new Map<string, string[]>();
  for (const [target, source] of tree.tiedWeights) groups.set(source, [...(groups.get(source) ?? [source]), target]);
  return [...groups.values()].map((group) => group.sort());
};

/**
 * Groups of parameters that are one tensor, each sorted, in sorted order.
 * @param parameters name and identity of every parameter, ties included. Source: accelerate `find_tied_parameters`.
 */
export const findTiedParameters = (
  parameters: readonly (readonly [name: string, identity: number | string])[],
): string[][] => {
  const byIdentity = new Map<number | string, string[]>();
  for (const [name, identity] of parameters) byIdentity.set(identity, [...(byIdentity.get(identity) ?? []), name]);
  return [...byIdentity.values()]
    .filter((group) => group.length > 1)
    .map((group) => group.sort())
    .sort((a, b) => (a[0]! < b[0]! ? -1 : 1));
};

/** A node, what has to come along because of ties, and the bytes of all of it. */
export interface Bundle {
  /** Names outside the node that are tied to a parameter inside. */
  outside: string[];
  /** Where those names are, once per name. */
  owners: Node[];
  bytes: number;
}

/** How ties are followed. */
export interface TieRules {
  groups: readonly (readonly string[])[];
  counts: Rules['countsTied'];
  strict: boolean;
}

/** Python looks for the path anywhere in the name: it takes `norm.scale` to be inside a parameter `scale`. */
const pythonInside = (name: string, path: string): boolean => `${name}.`.includes(`${path}.`);

/** The tied names outside a path of the groups that also have a name inside. */
export const tiedOutside = (path: string, { groups, strict }: TieRules): string[] => {
  const inside = strict ? isInside : pythonInside;
  return groups.flatMap((group) => {
    const outside = group.filter((name) => !inside(name, path));
    return outside.length < group.length ? outside : [];
  });
};

/**
 * Size of a module together with the modules its tied parameters are in, each less the shared tensor.
 * Source: accelerate `get_module_size_with_ties`.
 * @param tied names of the tied parameters outside the module
 * @param size bytes of the module
 * @param sizes bytes by path
 * @param modules paths that are still to be placed
 * @returns the bytes, and for each tied parameter the module it is in (left out when it has been placed already)
 */
export const getModuleSizeWithTies = (
  tied: readonly string[],
  size: number,
  sizes: Readonly<Record<string, number>>,
  modules: readonly string[],
): { size: number; modules: string[] } => {
  const nodes = modules.map((path) => ({ path }));
  const found = withTies(tied, size, new Map(Object.entries(sizes)), nodes, 'each');
  return { size: found.bytes, modules: found.owners.map(({ path }) => path) };
};

const withTies = <T extends { path: string }>(
  tied: readonly string[],
  size: number,
  sizes: ReadonlyMap<string, number>,
  waiting: readonly T[],
  counts: Rules['countsTied'],
): { bytes: number; owners: T[] } => {
  const owners: T[] = [];
  let bytes = size;
  for (const name of tied) {
    const owner = waiting.find((node) => isInside(name, node.path));
    if (owner === undefined) continue;
    if (counts === 'each') bytes += (sizes.get(owner.path) ?? 0) - (sizes.get(name) ?? 0);
    else if (!owners.includes(owner)) bytes += sizes.get(owner.path) ?? 0;
    owners.push(owner);
  }
  return { bytes, owners };
};

/**
 * What placing a node takes. With `strict`, ties are followed further (a tied module may itself be tied to others), and
 * every module that moves counts once.
 */
export const bundle = (node: Node, waiting: readonly Node[], sizes: Sizes, rules: TieRules): Bundle => {
  const { counts, strict } = rules;
  const own = sizes.get(node.path) ?? 0;
  const outside = tiedOutside(node.path, rules);
  if (outside.length === 0) return { outside, owners: [], bytes: own };
  const direct = withTies(outside, own, sizes, waiting, counts);
  if (!strict) return { outside, ...direct };
  const moved = new Set<Node>(direct.owners);
  for (const owner of moved) {
    for (const next of withTies(tiedOutside(owner.path, rules), 0, sizes, waiting, counts).owners)
      if (next !== node) moved.add(next);
  }
  const real = [...moved].reduce((sum, owner) => sum + (sizes.get(owner.path) ?? 0), own);
  return { outside, owners: [...moved], bytes: real };
};
