import { ConfigError, describeValue } from '@q/config';

/**
 * Where a module can live: the id of a GPU (ids may have gaps), `'mps'`, `'cpu'` (host memory) or `'disk'`.
 * Strings such as `'cuda:1'` appear only in device maps that a caller wrote; plans use the id.
 */
export type Device = number | string;

/** A budget in bytes, or a size such as `"10GiB"` (see `parseSize`). */
export type Size = number | string;

/**
 * Budgets per device, as pairs (order and the kind of the key survive), a record (`{ 0: '10GiB', cpu: '30GiB' }`) or a
 * Map.
 */
export type Budgets = readonly (readonly [Device, Size])[] | Readonly<Record<string, Size>> | ReadonlyMap<Device, Size>;

/** Budgets in bytes, in the order in which devices are filled: GPUs by id, then mps, cpu, disk. */
export type ByteBudgets = [Device, number][];

/** `{ module or tensor path: device }`; `''` is the whole model. */
export type DeviceMap = Record<string, Device>;

/** A device map as data: a record, pairs (order kept), or a Map. */
export type DeviceMapInput =
  Readonly<Record<string, Device>> | readonly (readonly [string, Device])[] | ReadonlyMap<string, Device>;

/**
 * What the backends report: pairs `[GPU id, free bytes]`, `['cpu', available bytes]`, `['mps', available bytes]`.
 * A GPU with `null` exists but cannot be used. `['integrated', true]`: the GPUs share the host's memory.
 */
export type DeviceReport = readonly (readonly [Device, number | boolean | null])[];

/**
 * Something the planner wants to be known. `level` and `code` as accelerate and transformers log them;
 * `balance_given_up`, `skip_without_effect` and `checkpoint` (what was found where the model's files were read, in the
 * words of `text`) are Q's.
 */
export type Message =
  | { level: 'warning'; code: 'device_unavailable'; device: number; available: number[] }
  | { level: 'info'; code: 'device_skipped'; device: number }
  | { level: 'info'; code: 'ninety_percent'; device: number }
  | { level: 'warning'; code: 'offload_buffers'; bytes: number }
  | { level: 'info'; code: 'insufficient_memory'; required: [Device, number][] }
  | { level: 'warning'; code: 'weights_not_tied' }
  | { level: 'warning'; code: 'tied_on_different_devices'; devices: Record<string, Device> }
  | { level: 'warning'; code: 'unknown_keys'; keys: string[] }
  | { level: 'warning'; code: 'skip_without_effect'; patterns: readonly string[] }
  | { level: 'warning'; code: 'checkpoint'; text: string }
  | { level: 'info'; code: 'balance_given_up'; bytes: number };

/** Pairs of a record, of pairs or of a Map; keys of a record that are integers become numbers. */
export const budgetPairs = (budgets: Budgets): [Device, Size][] => {
  if (Array.isArray(budgets)) return budgets.map(([device, size]) => [device, size]);
  if (budgets instanceof Map) return [...budgets];
  return Object.entries(budgets as Record<string, Size>).map(([key, size]) => [
    /^-?\d+$/.test(key) ? Number(key) : key,
    size,
  ]);
};

/** Pairs of a device map in any of its forms. @throws ConfigError for what is none */
export const mapPairs = (map: DeviceMapInput): [string, Device][] => {
  if (typeof map !== 'object' || map === null)
    throw new ConfigError('deviceMap', `the device map is ${describeValue(map)}`, {
      rule: 'invalid_device_map',
      fix: 'give { module: device }',
    });
  if (Array.isArray(map)) return map.map(([path, device]) => [path, device]);
  if (map instanceof Map) return [...map];
  return Object.entries(map as Record<string, Device>);
};

/** True when `path` is `prefix` or lies below it. `''` is above everything. */
export const isInside = (path: string, prefix: string): boolean =>
  prefix === '' || path === prefix || path.startsWith(`${prefix}.`);

/** GPUs hold weights next to the compute; cpu and disk are where modules are offloaded to. */
export const isOffload = (device: Device): boolean => device === 'cpu' || device === 'disk';
