import { ConfigError } from '@q/config';
import { type Device, type DeviceMap, type DeviceMapInput, mapPairs } from './types.js';

/** Strategies that plan; every other value of `deviceMap` says where things go. */
export const strategies = ['auto', 'balanced', 'balanced_low_0', 'sequential'] as const;
export type Strategy = (typeof strategies)[number];

export const isStrategy = (value: unknown): value is Strategy => strategies.some((strategy) => strategy === value);

/** Device types that PyTorch knows, so that maps written for it are recognised. */
const deviceTypes = new Set(
  'cpu cuda ipu xpu mkldnn opengl opencl ideep hip ve fpga maia xla lazy vulkan mps meta hpu mtia privateuseone'.split(
    ' ',
  ),
);

/**
 * The `deviceMap` argument of `fromPretrained` as a strategy, a map, or null when none is given: a device becomes `{
 * '': device }`, `'cuda'` becomes `'cuda:0'` (or that of `localRank`). Source: transformers 5
 * `check_and_set_device_map`.
 * @param localRank index of this process among those of the machine, for `'cuda'`
 * @throws ConfigError with `fields.rule` `invalid_device_map` or `negative_device`
 */
export const normalizeDeviceMap = (
  value: Device | DeviceMapInput | null | undefined,
  { localRank = 0 }: { localRank?: number } = {},
): Strategy | DeviceMap | null => {
  if (value === null || value === undefined) return null;
  if (typeof value === 'object') return Object.fromEntries(mapPairs(value));
  if (isStrategy(value)) return value;
  if (typeof value === 'number') {
    if (Number.isInteger(value) && value >= 0) return { '': value };
    throw new ConfigError('normalizeDeviceMap', 'not the id of a GPU', {
      rule: 'negative_device',
      deviceMap: value,
      fix: 'for the host, pass "cpu"',
    });
  }
  const [, type, index] = /^([a-z]+)(?::(0|[1-9]\d*))?$/.exec(value) ?? [];
  if (type === undefined || !deviceTypes.has(type)) {
    throw new ConfigError('normalizeDeviceMap', 'neither a device nor a strategy', {
      rule: 'invalid_device_map',
      deviceMap: value,
      fix: `pass one of ${strategies.join(', ')}, a device such as cpu or cuda:0, the id of a GPU, or a map`,
    });
  }
  return { '': type === 'cuda' && index === undefined ? `cuda:${localRank}` : value };
};

/**
 * A device of a map as plans write it: `'cuda:1'` is 1.
 * @throws ConfigError (`fields.rule` `unrecognized_device`) for what Q cannot place on
 */
export const planDevice = (device: Device): Device => {
  if (typeof device === 'number' && Number.isInteger(device) && device >= 0) return device;
  if (device === 'cpu' || device === 'disk' || device === 'mps') return device;
  const [, index] = typeof device === 'string' ? (/^cuda(?::(\d+))?$/.exec(device) ?? []) : [];
  if (index !== undefined) return Number(index);
  if (device === 'cuda') return 0;
  throw new ConfigError('planDevice', 'a device that nothing can be placed on', {
    rule: 'unrecognized_device',
    device,
    fix: 'use the id of a GPU, "cuda:N", "cpu" or "disk"',
  });
};
