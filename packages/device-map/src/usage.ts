import type { Measure } from './sizes.js';
import type { ModuleNode, Tree } from './tree.js';
import type { Device, DeviceMap } from './types.js';

/** What a plan puts on one device; everything in bytes. */
export interface DeviceUsage {
  device: Device;
  /** What the device may hold: its given or reported memory. Infinity when nothing limits it. */
  budget: number;
  /** Parameters and buffers. */
  weights: number;
  /** KV cache of the layers whose cache lies here. */
  kvCache: number;
  /** Context and work buffers; none where nothing that takes memory is placed. */
  reserved: number;
  /** What is left; negative when the device holds too much. */
  free: number;
  /** Number of keys of the device map that name this device. */
  modules: number;
}

/** Where the caches of layers on disk lie: in host memory when it has a budget, else on the first device. */
export const cacheHost = (devices: readonly Device[]): Device =>
  devices.includes('cpu') ? 'cpu' : (devices[0] ?? 'cpu');

interface UsageInput {
  tree: Tree;
  measure: Measure;
  deviceMap: DeviceMap;
  budgets: ReadonlyMap<Device, number>;
  caches: ReadonlyMap<string, number>;
  reserves: ReadonlyMap<Device, number>;
}

const add = (totals: Map<Device, number>, device: Device, bytes: number): void =>
  void totals.set(device, (totals.get(device) ?? 0) + bytes);

const rank = (device: Device): number => (typeof device === 'number' ? -1 : ['mps', 'cpu', 'disk'].indexOf(device));

/** GPUs by id, then mps, cpu, disk. */
const byRank = (a: Device, b: Device): number => rank(a) - rank(b) || Number(a) - Number(b);

/** Bytes per device, of the devices with a budget and those that are used. */
export const usageOf = ({ tree, measure, deviceMap, budgets, caches, reserves }: UsageInput): DeviceUsage[] => {
  const weights = new Map<Device, number>();
  const kvCache = new Map<Device, number>();
  const modules = new Map<Device, number>();
  const host = cacheHost([...budgets.keys()]);
  const keys = new Map(Object.entries(deviceMap));
  const find = nearest(keys);
  for (const tensors of [tree.parameters, tree.buffers]) {
    for (const tensor of tensors.values()) {
      const device = measure.skip.has(tensor.path) ? undefined : (keys.get(tensor.path) ?? find(tensor.owner));
      if (device !== undefined) add(weights, device, measure.bytes(tensor));
    }
  }
  for (const [path, bytes] of caches) {
    const device = find(tree.modules.get(path)!) ?? 'disk';
    add(kvCache, device === 'disk' ? host : device, bytes);
  }
  for (const device of Object.values(deviceMap)) add(modules, device, 1);
  const devices = [...new Set([...budgets.keys(), ...modules.keys(), ...kvCache.keys()])].sort(byRank);
  return devices.map((device) => {
    const held = { weights: weights.get(device) ?? 0, kvCache: kvCache.get(device) ?? 0 };
    const needed = held.weights > 0 || held.kvCache > 0;
    const part = { ...held, reserved: needed ? (reserves.get(device) ?? 0) : 0 };
    const budget = budgets.get(device) ?? Infinity;
    return {
      device,
      budget,
      ...part,
      free: budget - part.weights - part.kvCache - part.reserved,
      modules: modules.get(device) ?? 0,
    };
  });
};

/** The device of a module: that of its own key, or of the nearest module above it. */
const nearest = (keys: ReadonlyMap<string, Device>): ((module: ModuleNode) => Device | undefined) => {
  const known = new Map<ModuleNode, Device | undefined>();
  const find = (module: ModuleNode): Device | undefined => {
    if (known.has(module)) return known.get(module);
    const device = keys.get(module.path) ?? (module.parent === null ? undefined : find(module.parent));
    known.set(module, device);
    return device;
  };
  return find;
};
