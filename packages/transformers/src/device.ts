import {
  assertInteger,
  assertKnownKeys,
  ConfigError,
  describeValue,
  OutOfMemoryError,
  QError,
  UnsupportedError,
} from '@q/config';
import type { DeviceReport as FreeMemory } from '@q/device-map';
import { cpuAddon, type CpuCeilings } from '@q/kernels-cpu';
import { findNvcc, loadCuda, oldestNvcc } from '@q/kernels-cuda';
import {
  eager as eagerIn,
  fused,
  openBackend,
  parseDevice,
  type Addon,
  type Backend,
  type Driver,
  type DriverFailure,
  type DriverInfo,
  type FloatDType,
} from '@q/tensor';

const addonOf = (type: 'cpu' | 'cuda'): Addon => (type === 'cpu' ? cpuAddon() : loadCuda());

export interface DeviceOptions {
  /** Of a CPU. Default: the physical cores. */
  readonly threads?: number;
  /** Eager numerics in this dtype: the steps and roundings of Python. Default: fused operators. */
  readonly eager?: FloatDType;
  /** Whether models look at the result of every layer and report the first that is not finite. Default false. */
  readonly checkFinite?: boolean;
}

/**
 * Opens a device.
 * @throws UnsupportedError when it does not exist or its driver cannot be loaded, saying why; ConfigError for options
 */
export function openDevice(name: string | number, options: DeviceOptions = {}): Backend {
  assertKnownKeys('openDevice', options, ['threads', 'eager', 'checkFinite']);
  if (typeof name !== 'string' && typeof name !== 'number')
    throw new ConfigError('openDevice', `the device is ${describeValue(name)}`, {
      fix: 'use "cpu", "cuda", "cuda:N" or a GPU number',
    });
  const { threads, eager, checkFinite } = options;
  if (threads !== undefined) assertInteger('openDevice', 'threads', threads);
  if (eager !== undefined && !['f32', 'f16', 'bf16'].includes(eager))
    throw new ConfigError('openDevice', `eager is ${describeValue(eager)}`, {
      fix: 'use "f32", "f16" or "bf16"',
    });
  const device = parseDevice(name);
  const addon = addonOf(device.type);
  const { devices, problem, fix } = addon.devices();
  if (!devices.some(({ index }) => index === device.index)) {
    throw new UnsupportedError('device', `there is no device ${String(name)}`, {
      found: devices.map((info) => info.name),
      why: problem,
      fix: `use "cpu", or ${fix ?? 'see "q doctor"'}`,
    });
  }
  const lowering = eager === undefined ? fused : eagerIn(eager);
  return openBackend(openDriver(addon, device.index, device.type === 'cpu' ? { threads } : {}), {
    lowering,
    checkFinite,
  });
}

/** @throws OutOfMemoryError when the system has no memory or no thread for it */
function openDriver(addon: Addon, index: number, options: { threads?: number } = {}): Driver {
  try {
    return addon.open(index, options);
  } catch (cause) {
    if (!(cause instanceof Error) || (cause as Partial<DriverFailure>).code !== 'out_of_memory') throw cause;
    throw new OutOfMemoryError('device', `the device cannot be opened: ${cause.message}`, {
      fix: 'close models that are not used, or raise the limit of threads and memory (ulimit -u, ulimit -v)',
      cause,
    });
  }
}

/** The devices of one kind, or why there are none. */
export interface DeviceReport {
  readonly type: 'cpu' | 'cuda';
  readonly devices: readonly DriverInfo[];
  /** Why there is none, or why some are missing. */
  readonly problem?: string;
  /** What to do about it. */
  readonly fix?: string;
}

/** What this machine has, for reports; a backend that cannot be loaded says why instead of throwing. */
export function listDevices(): DeviceReport[] {
  return (['cpu', 'cuda'] as const).map((type) => {
    try {
      return { type, ...addonOf(type).devices() };
    } catch (error) {
      if (error instanceof QError) return { type, devices: [], problem: error.message };
      throw error;
    }
  });
}

/** The CUDA compiler that a build of the kernels would take; undefined when there is none. */
export function cudaCompiler():
  | {
      readonly path: string;
      readonly release: string;
      /** The oldest release that builds them. */ readonly oldest: string;
    }
  | undefined {
  const found = findNvcc();
  return found && { ...found, oldest: oldestNvcc };
}

/** Free memory of the devices, as the planner takes it. Opens and closes each device to ask. */
export async function freeMemory(): Promise<FreeMemory> {
  const pairs: [number | 'cpu', number][] = [];
  for (const { type, devices } of listDevices()) {
    for (const { index } of devices) {
      const driver = openDriver(addonOf(type), index);
      pairs.push([type === 'cpu' ? 'cpu' : index, driver.memory().freeBytes]);
      await driver.close();
    }
  }
  return pairs;
}

/**
 * What this machine's CPU can do at most, measured: about 2 seconds and 1 GiB. @param threads default: the physical
 * cores
 */
export const measureCpuCeilings = (threads?: number): Promise<CpuCeilings> => cpuAddon().ceilings(threads);
