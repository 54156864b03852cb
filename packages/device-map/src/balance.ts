import { type ModuleTree, type Tree, type Unsplittable, readTree, unsplittable } from './tree.js';
import { type SizeOptions, measureOf } from './measure.js';
import { type Sizes, measureTree } from './sizes.js';
import { getMaxMemory } from './max-memory.js';
import type { Budgets, ByteBudgets, DeviceReport, Message } from './types.js';
import { type Rules, rulesOf } from './wiring/rules.js';

export interface BalanceInput {
  tree: Tree;
  sizes: Sizes;
  whole: Unsplittable;
  budgets: ByteBudgets;
  /** True when nobody chose the budgets: a lone GPU then keeps 10 % free. */
  detected: boolean;
  /** Keep the first GPU as empty as possible (`balanced_low_0`). */
  lowZero: boolean;
  rules: Rules;
}

/**
 * Budgets lowered so that GPUs fill evenly: every GPU but the last gets an equal share of the model plus 1.25 x the
 * larger of an unsplittable block and the mean layer. With `lowZero`, the first GPU gets only what the others cannot
 * hold.
 *
 * Ids may have gaps. `lowZero` follows accelerate where ids are 0..n-1; accelerate and transformers fail on other ids
 * (accelerate #4297), where here the lowest id is "GPU 0" and all others are the rest.
 */
export const balance = ({
  tree,
  sizes,
  whole,
  budgets,
  detected,
  lowZero,
  rules,
}: BalanceInput): { budgets: ByteBudgets; messages: Message[] } => {
  const memory = new Map(budgets);
  const counted = budgets.filter(([device, bytes]) => rules.balances(device) && bytes > 0).length;
  if (counted === 0) return { budgets, messages: [] };
  const messages: Message[] = [];
  const ids = budgets.flatMap(([device]) => (typeof device === 'number' ? [device] : []));
  const low = lowZero && counted > 1;
  if (counted === 1 && detected && ids[0] !== undefined) {
    memory.set(ids[0], memory.get(ids[0])! * 0.9);
    messages.push({ level: 'info', code: 'ninety_percent', device: ids[0] });
  }
  const total = sizes.get('') ?? 0;
  const block = blockBytes(tree, sizes, whole, rules);
  const margin = Math.trunc(1.25 * Math.max(block, meanLayer(tree, sizes, rules)));
  const usable = ids.filter((id) => memory.get(id)! > 0);
  const { zero, rest } = lowest(ids, usable, counted, rules);
  // Python divides by the GPUs with a budget but one, also where GPU 0 is not among them.
  const sharers = !low ? counted : rules.strict ? Math.max(1, rest.length) : counted - 1;
  const share = Math.floor(total / sharers) + margin;

  for (const id of usable.slice(0, -1)) {
    if (!(low && id === zero)) memory.set(id, Math.min(share, memory.get(id)!));
  }
  if (low) {
    const elsewhere = rest.reduce((sum, id) => sum + memory.get(id)!, 0);
    memory.set(zero, Math.min(Math.max(0, total - elsewhere), memory.get(zero)!));
  }
  return { budgets: [...memory], messages };
};

/**
 * The GPU that is kept free, and those that share the model. A GPU without a budget shares nothing; Python takes the
 * ids 1..n-1 for the others where n GPUs have a budget, whatever their ids.
 */
const lowest = (
  ids: readonly number[],
  usable: readonly number[],
  counted: number,
  rules: Rules,
): { zero: number; rest: readonly number[] } => {
  const others = (zero: number) => usable.filter((id) => id !== zero);
  if (rules.strict) return { zero: ids[0]!, rest: others(ids[0]!) };
  const contiguous = Array.from({ length: counted }, (_, id) => id).every((id) => ids.includes(id));
  return contiguous
    ? { zero: 0, rest: Array.from({ length: counted - 1 }, (_, index) => index + 1) }
    : { zero: ids[0]!, rest: ids.filter((id) => id !== ids[0]) };
};

/**
 * Bytes of an unsplittable block: the largest of the first or of all modules of each no-split class, and of those whole
 * by path.
 */
const blockBytes = (tree: Tree, sizes: Sizes, whole: Unsplittable, rules: Rules): number => {
  const seen = new Set<string>();
  let largest = 0;
  for (const [path, size] of sizes) {
    const className = path === '' ? undefined : tree.modules.get(path)?.className;
    if (className === undefined || !(whole.classes.has(className) || whole.paths.has(path))) continue;
    if (rules.block === 'first' && seen.has(className)) continue;
    seen.add(className);
    largest = Math.max(largest, size);
  }
  return largest;
};

const meanLayer = (tree: Tree, sizes: Sizes, rules: Rules): number => {
  const layers = rules.meanOver === 'owners' ? ownedBytes(tree, sizes) : innermostBytes(tree, sizes);
  return Math.trunc(layers.reduce((sum, size) => sum + size, 0) / Math.max(layers.length, 1));
};

/** Bytes of the tensors that each module owns itself; what the root owns is left out. */
const ownedBytes = (tree: Tree, sizes: Sizes): number[] => {
  const owned: number[] = [];
  for (const module of tree.modules.values()) {
    let bytes = 0;
    let counted = 0;
    for (const tensors of [module.parameters, module.buffers]) {
      for (const { path } of tensors) {
        const size = sizes.get(path);
        if (size === undefined) continue;
        bytes += size;
        counted++;
      }
    }
    if (module.path !== '' && counted > 0) owned.push(bytes);
  }
  return owned;
};

/** Bytes of the modules in which no other module holds anything. */
const innermostBytes = (tree: Tree, sizes: Sizes): number[] => {
  const inner: number[] = [];
  for (const module of tree.modules.values()) {
    const size = sizes.get(module.path);
    if (module.path !== '' && size !== undefined && !module.children.some((child) => sizes.has(child.path)))
      inner.push(size);
  }
  return inner;
};

export interface BalanceOptions extends SizeOptions {
  /** Budgets; null or absent: what the devices report. */
  maxMemory?: Budgets | null;
  devices?: DeviceReport;
  /** Classes that are not split. Default: those of the tree. */
  noSplit?: readonly string[];
  /** Default false. */
  lowZero?: boolean;
}

/**
 * Balanced budgets of a model in bytes. Sources: `get_balanced_memory` of accelerate and of transformers 5.
 * @throws ConfigError as `getMaxMemory`
 */
export const getBalancedMemory = (
  tree: ModuleTree | Tree,
  options: BalanceOptions = {},
): { budgets: ByteBudgets; messages: Message[] } => {
  const linked = readTree(tree);
  const rules = rulesOf(options.wiring ?? 'accelerate');
  const given = getMaxMemory(options.maxMemory, { devices: options.devices, wiring: rules.wiring });
  const balanced = balance({
    tree: linked,
    sizes: measureTree(linked, measureOf(linked, options)),
    whole: unsplittable(linked, options.noSplit),
    budgets: given.budgets,
    detected: options.maxMemory === null || options.maxMemory === undefined,
    lowZero: options.lowZero ?? false,
    rules,
  });
  return { budgets: balanced.budgets, messages: [...given.messages, ...balanced.messages] };
};
