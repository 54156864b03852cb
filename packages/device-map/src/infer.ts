import { cleanDeviceMap } from './cleanMap.js';
import { fallbackNode } from './fallback.js';
import { checkTiedParametersOnSameDevice } from './lookup.js';
import { getMaxMemory } from './maxMemory.js';
import { type SizeOptions, bufferMeasure, measureOf } from './measure.js';
import { type Measure, type Sizes, bufferBytes, layerFinder, measureTree } from './sizes.js';
import { type Bundle, type TieRules, bundle, tiedGroups } from './ties.js';
import { type ModuleTree, type Node, type Tree, type Unsplittable, isLayer, partsOf, readTree, rootItems, unsplittable } from './tree.js';
import { type Budgets, type ByteBudgets, type Device, type DeviceMap, type DeviceReport, type Message, isOffload } from './types.js';
import { type Rules, rulesOf } from './wiring/rules.js';

/** One decision of the planner: a module was tried on a device. */
export interface Step {
  module: string;
  device: Device;
  /** Bytes of the module. */
  bytes: number;
  /** Bytes with the modules that must come along because of ties. */
  needed: number;
  /** Modules that come along because of ties. */
  tied: string[];
  /** Bytes the device may hold; Infinity for disk. */
  budget: number;
  /** Bytes kept free on it for the largest layer that may have to be brought back. */
  reserved: number;
  /** Bytes placed on it before this step. */
  used: number;
  outcome: 'placed' | 'split' | 'split tied' | 'next device' | 'fallback';
}

export interface Filling {
  tree: Tree;
  sizes: Sizes;
  measure: Measure;
  whole: Unsplittable;
  budgets: ByteBudgets;
  rules: Rules;
  offloadBuffers: boolean;
  fallbackAllocation: boolean;
}

export interface Filled {
  /** Device of each node that was placed whole, in the order of placing. */
  placed: Map<string, Device>;
  steps: Step[];
  messages: Message[];
}

/** Devices that keep room for the largest layer not placed yet: the first GPU and the host, or mps alone. */
const mainDevices = (devices: readonly Device[]): ReadonlySet<Device> => {
  if (devices.includes('mps')) return new Set(['mps']);
  const gpu = devices.find((device) => !isOffload(device));
  return new Set(gpu === undefined ? ['cpu'] : [gpu, 'cpu']);
};

/** Keeps the size of the largest layer that is still to be placed. */
class LargestLayer {
  size = 0;
  #left = new Set<Node>();

  constructor(private readonly find: ReturnType<typeof layerFinder>) {}

  /** Looks at everything that waits. */
  reset(nodes: readonly Node[]): void {
    const { size, layers } = this.find(nodes);
    this.size = size;
    this.#left = new Set(layers);
  }

  /** A node is being treated: when the last of the largest layers is in it, those that wait decide. */
  leave(node: Node, waiting: readonly Node[]): void {
    const inside = this.find([node]);
    if (inside.size === this.size) for (const layer of inside.layers) this.#left.delete(layer);
    if (this.#left.size === 0) this.reset(onlyModules(waiting));
  }
}

const onlyModules = (nodes: readonly Node[]): Node[] => nodes.filter((node) => node.kind === 'module');

/**
 * Fills devices one after another with the parts of a model in their order. A part that does not fit is split if it may be;
 * otherwise the next device is tried, and an earlier one never again. Disk takes whatever is left.
 * Source: accelerate `infer_auto_device_map`; transformers 5 follows it.
 */
export const fill = (input: Filling): Filled => {
  const { tree, sizes, measure, whole, rules } = input;
  const budgets = new Map(input.budgets);
  const devices: Device[] = [...budgets.keys(), ...(budgets.has('disk') ? [] : ['disk'])];
  const mains = mainDevices(devices);
  const ties: TieRules = { groups: tiedGroups(tree, rules), counts: rules.countsTied, strict: rules.strict };
  const largest = new LargestLayer(layerFinder(sizes, whole));
  const used = new Map<Device, number>(devices.map((device) => [device, 0]));
  const placed = new Map<string, Device>();
  const buffers = new Map<Device, number>();
  const required = new Map<Device, number>();
  const steps: Step[] = [];
  let waiting = rootItems(tree);
  let current = 0;
  largest.reset(waiting);

  const place = (node: Node, { owners, bytes }: Bundle, device: Device): void => {
    used.set(device, used.get(device)! + bytes);
    for (const { path } of [node, ...owners]) placed.set(path, device);
    if (owners.length > 0) waiting = waiting.filter((other) => !owners.includes(other));
    // Python goes on keeping room for a layer that a tie has brought along.
    if (rules.strict) for (const owner of owners) largest.leave(owner, waiting);
    if (!input.offloadBuffers) buffers.set(device, (buffers.get(device) ?? 0) + bufferBytes(node, measure.bytes));
  };
  const split = (node: Node): void => {
    waiting = waiting.flatMap((other) => (other === node ? partsOf(node, rules.strict) : [other]));
    largest.reset(onlyModules(waiting));
  };

  while (waiting.length > 0) {
    const node = waiting[0]!;
    waiting = waiting.slice(1);
    largest.leave(node, waiting);
    const device = devices[current]!;
    const budget = device === 'disk' ? Infinity : budgets.get(device)!;
    const reserved = mains.has(device) ? largest.size : 0;
    const limit = budget - reserved;
    const own = sizes.get(node.path) ?? 0;
    const wanted = bundle(node, waiting, sizes, ties);
    const before = used.get(device)!;
    const record = (outcome: Step['outcome'], module = node.path): void => {
      const tied = wanted.owners.map(({ path }) => path);
      steps.push({ module, device, bytes: own, needed: wanted.bytes, tied, budget, reserved, used: before, outcome });
    };

    if (before + wanted.bytes <= limit) {
      record('placed');
      place(node, wanted, device);
      continue;
    }
    if (wanted.outside.length > 0 && before + own <= limit) {
      const divisible = wanted.owners.find((owner) => !isLayer(owner, whole));
      if (divisible !== undefined) {
        record('split tied');
        waiting = [node, ...waiting];
        split(divisible);
        continue;
      }
    }
    if ((rules.splitsForTies || before + own >= limit) && !isLayer(node, whole)) {
      record('split');
      waiting = [node, ...waiting];
      split(node);
      continue;
    }
    if (before === 0 && input.fallbackAllocation && device !== 'disk') {
      const room = budget - Math.max(largest.size, wanted.bytes);
      const found = fallbackNode({ node, waiting, room, sizes, ties, whole });
      if (found !== undefined) {
        record('fallback', found.node.path);
        waiting = [found.node, node, ...found.rest];
        continue;
      }
    }
    record('next device');
    if (before === 0) required.set(device, wanted.bytes + reserved);
    used.set(device, before + reserved);
    current += 1;
    waiting = [node, ...waiting];
  }
  return { placed, steps, messages: closingMessages(input, { used, buffers, required }) };
};

interface Totals {
  used: ReadonlyMap<Device, number>;
  buffers: ReadonlyMap<Device, number>;
  required: ReadonlyMap<Device, number>;
}

const closingMessages = ({ budgets, rules, offloadBuffers }: Filling, { used, buffers, required }: Totals): Message[] => {
  const messages: Message[] = [];
  if (required.size > 0) messages.push({ level: 'info', code: 'insufficient_memory', required: [...required] });
  const bytes = (buffers.get('cpu') ?? 0) + (buffers.get('disk') ?? 0);
  const gpus = budgets.filter(([device]) => !isOffload(device));
  const fits = gpus.some(([device, budget]) => budget >= bytes + (used.get(device) ?? 0));
  if (bytes > 0 && !offloadBuffers && gpus.length > 0 && !fits) messages.push({ level: 'warning', code: 'offload_buffers', bytes });
  return rules.buffersFirst ? messages.reverse() : messages;
};

export interface InferOptions extends SizeOptions {
  /** Budgets; null or absent: what the devices report. */
  maxMemory?: Budgets | null;
  devices?: DeviceReport;
  /** Classes that are not split. Default: those of the tree. */
  noSplit?: readonly string[];
  /** Buffers of offloaded modules are offloaded too, so no GPU has to hold them. Default false. */
  offloadBuffers?: boolean;
  /** When nothing fits a device, look further for a module that does. Default false. */
  fallbackAllocation?: boolean;
  /** Group modules that share a device. Default true. */
  cleanResult?: boolean;
}

export interface InferredMap {
  deviceMap: DeviceMap;
  messages: Message[];
  steps: Step[];
}

/** Whether the config promises tied embeddings that the tree does not have. */
export const untiedMessage = (tree: Tree, tied: boolean): Message[] =>
  tree.tieWordEmbeddings && tree.outputEmbeddings !== null && (!tied || tree.tied.length === 0)
    ? [{ level: 'warning', code: 'weights_not_tied' }]
    : [];

/**
 * A device map of a model for given budgets, filling the devices in order (strategy `sequential`; see `getBalancedMemory` for
 * even filling and `planPlacement` for everything at once). Source: accelerate `infer_auto_device_map`.
 * @throws ConfigError as `getMaxMemory` and `readTree`
 */
export const inferAutoDeviceMap = (source: ModuleTree | Tree, options: InferOptions = {}): InferredMap => {
  const linked = readTree(source);
  const tied = options.tied ?? true;
  const tree = tied ? linked : { ...linked, tied: [] };
  const rules = rulesOf(options.wiring ?? 'accelerate');
  const memory = getMaxMemory(options.maxMemory, { devices: options.devices, wiring: rules.wiring });
  const filled = fill({
    tree,
    sizes: measureTree(tree, measureOf(tree, options)),
    measure: bufferMeasure(tree, options),
    whole: unsplittable(tree, options.noSplit),
    budgets: memory.budgets,
    rules,
    offloadBuffers: options.offloadBuffers ?? false,
    fallbackAllocation: options.fallbackAllocation ?? false,
  });
  const deviceMap = options.cleanResult === false ? Object.fromEntries(filled.placed) : cleanDeviceMap(filled.placed);
  const untied = rules.wiring === 'accelerate' ? untiedMessage(linked, tied) : [];
  return { deviceMap, steps: filled.steps, messages: [...memory.messages, ...untied, ...filled.messages, ...tieMessages(tree, rules, deviceMap)] };
};

/** Messages about ties over several devices, where the wiring looks for them. */
export const tieMessages = (tree: Tree, rules: Rules, map: DeviceMap): Message[] =>
  rules.checksTies ? checkTiedParametersOnSameDevice(tiedGroups(tree, rules), map) : [];
