import { ConfigError, describeValue } from '@q/config';
import { parseSize } from './parse-size.js';
import { type Budgets, type ByteBudgets, type Device, type DeviceReport, type Message, budgetPairs } from './types.js';
import { type Rules, type Wiring, rulesOf } from './wiring/rules.js';

export interface MaxMemoryOptions {
  /** What the backends report. Needed when no budgets are given; otherwise default: every GPU that is named exists. */
  devices?: DeviceReport;
  /** Default `accelerate`. */
  wiring?: Wiring;
}

export interface MaxMemory {
  /** Bytes per device in the order of filling: GPUs by id, mps, cpu, disk. */
  budgets: ByteBudgets;
  messages: Message[];
}

const order: readonly Device[] = ['mps', 'cpu', 'disk'];

/**
 * Budgets in bytes and in order. Given budgets are parsed; with `null`, what the devices report is used: all free
 * memory of the GPUs and of the host (transformers 5: 90 % of the host's), no host memory when GPUs share it. Sources:
 * accelerate `get_max_memory`, transformers 5 `get_max_memory`.
 * @throws ConfigError with `fields.rule` `invalid_size`, `unrecognized_device` or `no_devices`
 */
export const getMaxMemory = (maxMemory: Budgets | null | undefined, options: MaxMemoryOptions = {}): MaxMemory => {
  const rules = rulesOf(options.wiring ?? 'accelerate');
  if (maxMemory === null || maxMemory === undefined) return detected(options.devices, rules);
  if (typeof maxMemory !== 'object')
    throw new ConfigError('getMaxMemory', `maxMemory is ${describeValue(maxMemory)}`, {
      rule: 'invalid_size',
      fix: 'say it for each device, such as { 0: "10GiB", cpu: "30GiB" }',
    });
  const given = budgetPairs(maxMemory).map(([device, size]): [Device, number] => [device, budgetBytes(device, size)]);
  for (const [device] of given) {
    if (!Number.isInteger(device) && !order.includes(device)) {
      throw new ConfigError('getMaxMemory', 'device not recognized', {
        rule: 'unrecognized_device',
        device,
        fix: 'devices are the integer ids of GPUs, "mps", "cpu" and "disk"',
      });
    }
  }
  const gpus = given.filter((pair): pair is [number, number] => typeof pair[0] === 'number').sort(([a], [b]) => a - b);
  const others = order.flatMap((device) => given.filter(([name]) => name === device));
  const available = gpuIds(
    options.devices,
    gpus.map(([device]) => device),
  );
  const messages = gpus
    .filter(([device]) => !available.includes(device))
    .map(([device]): Message => ({ level: 'warning', code: 'device_unavailable', device, available }));
  return { budgets: [...gpus, ...others], messages };
};

const budgetBytes = (device: Device, size: number | string): number => {
  if (typeof size === 'string') return parseSize(size, `maxMemory of ${device}`);
  if (Number.isFinite(size) && size >= 0) return size;
  throw new ConfigError('getMaxMemory', 'not a budget', {
    rule: 'invalid_size',
    device,
    size,
    fix: 'give bytes (0 or more) or a size such as "10GiB"',
  });
};

const gpuIds = (devices: DeviceReport | undefined, named: readonly number[]): number[] => {
  const ids = devices?.map(([device]) => device).filter((device) => typeof device === 'number');
  if (ids !== undefined) return ids.sort((a, b) => a - b);
  return Array.from({ length: Math.max(-1, ...named) + 1 }, (_, id) => id);
};

const detected = (devices: DeviceReport | undefined, rules: Rules): MaxMemory => {
  if (devices === undefined) {
    throw new ConfigError('getMaxMemory', 'no budgets and no devices', {
      rule: 'no_devices',
      fix: 'pass maxMemory, or the devices that the backends report',
    });
  }
  const budgets: ByteBudgets = [];
  const messages: Message[] = [];
  for (const id of gpuIds(devices, [])) {
    const free = devices.find(([device]) => device === id)![1];
    if (typeof free === 'number') budgets.push([id, free]);
    else messages.push({ level: 'info', code: 'device_skipped', device: id });
  }
  const bytes = (name: string): number | undefined => {
    const found = devices.find(([device]) => device === name)?.[1];
    return typeof found === 'number' ? found : undefined;
  };
  const shared = budgets.length > 0 && devices.some(([device, flag]) => device === 'integrated' && flag === true);
  const mps = bytes('mps');
  const cpu = bytes('cpu');
  if (mps !== undefined) budgets.push(['mps', mps]);
  else if (cpu !== undefined && !shared) budgets.push(['cpu', rules.hostShare === 1 ? cpu : cpu * rules.hostShare]);
  return { budgets, messages };
};
