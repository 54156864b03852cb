import { fallbackNode } from './fallback.js';
import { type Measure, type Sizes, bufferBytes, layerFinder } from './sizes.js';
import { type Bundle, type TieRules, bundle, tiedGroups } from './ties.js';
import { type Node, type Tree, type Unsplittable, isLayer, partsOf, rootItems } from './tree.js';
import { type ByteBudgets, type Device, type Message, isOffload } from './types.js';
import type { Rules } from './wiring/rules.js';

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
 * Fills devices one after another with the parts of a model in their order. A part that does not fit is split if it may
 * be; otherwise the next device is tried, and an earlier one never again. Disk takes whatever is left. Source:
 * accelerate `infer_auto_device_map`; transformers 5 follows it.
 */
export const fill = (input: Filling): Filled => new Filler(input).run();

/** A node that is being placed, and what the current device has for it. */
interface Attempt {
  node: Node;
  bundle: Bundle;
  /** Bytes of the node alone. */
  own: number;
  device: Device;
  budget: number;
  reserved: number;
  used: number;
  /** Something tied to the node that could be split. */
  divisible: Node | undefined;
}

class Filler {
  private readonly devices: Device[];
  private readonly budgets: ReadonlyMap<Device, number>;
  private readonly mains: ReadonlySet<Device>;
  private readonly ties: TieRules;
  private readonly largest: LargestLayer;
  private readonly used: Map<Device, number>;
  private readonly placed = new Map<string, Device>();
  private readonly buffers = new Map<Device, number>();
  private readonly required = new Map<Device, number>();
  private readonly steps: Step[] = [];
  /** What is still to be placed, the next one last. */
  private waiting: Node[];
  private current = 0;

  constructor(private readonly input: Filling) {
    const { tree, sizes, whole, rules } = input;
    this.budgets = new Map(input.budgets);
    this.devices = [...this.budgets.keys(), ...(this.budgets.has('disk') ? [] : ['disk'])];
    this.mains = mainDevices(this.devices);
    this.used = new Map(this.devices.map((device) => [device, 0]));
    this.ties = { groups: tiedGroups(tree, rules), counts: rules.countsTied, strict: rules.strict };
    this.largest = new LargestLayer(layerFinder(sizes, whole));
    this.waiting = rootItems(tree).reverse();
    this.largest.reset(this.waiting);
  }

  run(): Filled {
    while (this.waiting.length > 0) this.treat(this.next());
    return { placed: this.placed, steps: this.steps, messages: this.messages() };
  }

  /** Takes the next node and looks at what the current device has for it. */
  private next(): Attempt {
    const node = this.waiting.pop()!;
    this.largest.leave(node, this.waiting);
    const device = this.devices[this.current]!;
    const wanted = bundle(node, this.waiting, this.input.sizes, this.ties);
    return {
      node,
      bundle: wanted,
      own: this.input.sizes.get(node.path) ?? 0,
      device,
      budget: device === 'disk' ? Infinity : this.budgets.get(device)!,
      reserved: this.mains.has(device) ? this.largest.size : 0,
      used: this.used.get(device)!,
      divisible: wanted.owners.find((owner) => !isLayer(owner, this.input.whole)),
    };
  }

  private treat(attempt: Attempt): void {
    const { node, bundle: wanted, own, device, divisible, used } = attempt;
    const { rules, whole, fallbackAllocation } = this.input;
    const limit = attempt.budget - attempt.reserved;
    // Only layers come along with a tie in Q's wiring, whatever the budgets: so more memory never makes a plan worse.
    if (rules.strict && divisible !== undefined) return this.split(divisible, node);
    if (used + wanted.bytes <= limit) return this.place(attempt);
    if (divisible !== undefined && used + own <= limit) {
      this.record(attempt, 'split tied');
      return this.split(divisible, node);
    }
    if ((rules.splitsForTies || used + own >= limit) && !isLayer(node, whole)) {
      this.record(attempt, 'split');
      return this.split(node, node);
    }
    if (used === 0 && fallbackAllocation && device !== 'disk' && this.fallBack(attempt)) return;
    this.leaveDevice(attempt);
  }

  private place(attempt: Attempt): void {
    const { node, bundle: wanted, device } = attempt;
    const { tree, rules, measure, offloadBuffers } = this.input;
    this.record(attempt, 'placed');
    this.used.set(device, attempt.used + wanted.bytes);
    for (const { path } of [node, ...wanted.owners]) this.placed.set(path, device);
    for (const owner of new Set(wanted.owners)) this.waiting.splice(this.waiting.indexOf(owner), 1);
    // Python goes on keeping room for a layer that a tie has brought along.
    if (rules.strict) for (const owner of wanted.owners) this.largest.leave(owner, this.waiting);
    if (!offloadBuffers && tree.buffers.size > 0)
      this.buffers.set(device, (this.buffers.get(device) ?? 0) + bufferBytes(node, measure.bytes));
  }

  /** Puts a node's parts in its place, before trying `node` again. */
  private split(divided: Node, node: Node): void {
    this.waiting.push(node);
    const parts = partsOf(divided, this.input.rules.strict).reverse();
    this.waiting = this.waiting.flatMap((other) => (other === divided ? parts : [other]));
    this.largest.reset(onlyModules(this.waiting));
  }

  /** Looks for something smaller that fits an empty device. */
  private fallBack(attempt: Attempt): boolean {
    const { node, bundle: wanted, budget } = attempt;
    const { sizes, whole } = this.input;
    const room = budget - Math.max(this.largest.size, wanted.bytes);
    const found = fallbackNode({ node, waiting: [...this.waiting].reverse(), room, sizes, ties: this.ties, whole });
    if (found === undefined) return false;
    this.record(attempt, 'fallback');
    this.waiting = [...found.rest.reverse(), node, found.node];
    return true;
  }

  private leaveDevice(attempt: Attempt): void {
    const { node, bundle: wanted, device, used, reserved } = attempt;
    this.record(attempt, 'next device');
    if (used === 0) this.required.set(device, wanted.bytes + reserved);
    this.used.set(device, used + reserved);
    this.current += 1;
    this.waiting.push(node);
  }

  private record(
    { node, bundle: wanted, own, device, budget, reserved, used }: Attempt,
    outcome: Step['outcome'],
  ): void {
    const tied = wanted.owners.map(({ path }) => path);
    this.steps.push({
      module: node.path,
      device,
      bytes: own,
      needed: wanted.bytes,
      tied,
      budget,
      reserved,
      used,
      outcome,
    });
  }

  private messages(): Message[] {
    const { budgets, rules, offloadBuffers } = this.input;
    const messages: Message[] = [];
    if (this.required.size > 0)
      messages.push({ level: 'info', code: 'insufficient_memory', required: [...this.required] });
    const bytes = (this.buffers.get('cpu') ?? 0) + (this.buffers.get('disk') ?? 0);
    const gpus = budgets.filter(([device]) => !isOffload(device));
    const fits = gpus.some(([device, budget]) => budget >= bytes + (this.used.get(device) ?? 0));
    if (bytes > 0 && !offloadBuffers && gpus.length > 0 && !fits)
      messages.push({ level: 'warning', code: 'offload_buffers', bytes });
    return rules.buffersFirst ? messages.reverse() : messages;
  }
}
