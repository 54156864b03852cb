import { ConfigError, QError, UnsupportedError } from '@q/config';
import { cpuAddon } from '@q/kernels-cpu';
import { openBackend, parseDevice, type Addon, type Backend, type DriverInfo } from '@q/tensor';

/** Opens a device. @throws UnsupportedError when it does not exist or its driver cannot be loaded, saying why. */
export function openDevice(name: string | number, options: { threads?: number } = {}): Backend {
  const device = parseDevice(name);
  const addon = device.type === 'cpu' ? cpuAddon() : noCuda();
  const { devices, problem } = addon.devices();
  if (device.index >= devices.length) {
    throw new UnsupportedError('device', `there is no device ${String(name)}`, { found: devices.map((info) => info.name), why: problem, fix: 'use "cpu", or see "q doctor"' });
  }
  return openBackend(addon.open(device.index, options));
}

const noCuda = (): never => {
  throw new UnsupportedError('device', 'CUDA devices are not supported yet', { fix: 'use device "cpu"' });
};

/** The devices of one kind, or why there are none. */
export interface DeviceReport {
  readonly type: 'cpu' | 'cuda';
  readonly devices: readonly DriverInfo[];
  /** Why there is none, or why some are missing. */
  readonly problem?: string;
}

/** What this machine has, for reports; a backend that cannot be loaded says why instead of throwing. */
export function listDevices(): DeviceReport[] {
  const report = (type: 'cpu' | 'cuda', addon: () => Addon): DeviceReport => {
    try {
      const { devices, problem } = addon().devices();
      return { type, devices, ...(problem !== undefined && { problem }) };
    } catch (error) {
      if (error instanceof QError) return { type, devices: [], problem: error.message };
      throw error;
    }
  };
  return [report('cpu', cpuAddon), report('cuda', noCuda)];
}

/** The one device of a `deviceMap` or `device` option. */
export function deviceOf(deviceMap: unknown, device: unknown): string | number {
  if (deviceMap !== undefined && device !== undefined) throw new ConfigError('fromPretrained', 'deviceMap and device are both given', { fix: 'give one of them' });
  const wanted = deviceMap ?? device ?? 'cpu';
  if (typeof wanted === 'string' || typeof wanted === 'number') return wanted === 'auto' ? 'cpu' : wanted;
  throw new UnsupportedError('fromPretrained', 'this device map is not supported', { got: wanted, fix: 'use "cpu"' });
}
