import { UnsupportedError } from '@q/config';
import type { DeviceReport } from '@q/device-map';
import { cpuAddon } from '@q/kernels-cpu';
import { loadCuda } from '@q/kernels-cuda';
import { openBackend, parseDevice, type Addon, type Backend } from '@q/tensor';

const addonOf = (type: 'cpu' | 'cuda'): Addon => (type === 'cpu' ? cpuAddon() : loadCuda());

/** Opens a device. @throws UnsupportedError when it does not exist or its driver cannot be loaded, saying why. */
export function openDevice(name: string | number, options: { threads?: number } = {}): Backend {
  const device = parseDevice(name);
  const addon = addonOf(device.type);
  const { devices, problem } = addon.devices();
  if (device.index >= devices.length) {
    throw new UnsupportedError('device', `there is no device ${String(name)}`, { found: devices.map((info) => info.name), why: problem, fix: 'use "cpu", or see "q doctor"' });
  }
  return openBackend(addon.open(device.index, device.type === 'cpu' ? options : {}));
}

/** A device that this machine has. */
export interface DeviceFact {
  readonly type: 'cpu' | 'cuda';
  readonly index: number;
  readonly name: string;
  readonly totalBytes: number;
  /** Bytes that can be allocated now. */
  readonly freeBytes: number;
  readonly features: Readonly<Record<string, string | number | boolean>>;
}

/** What this machine can compute on, and why it has no GPU when it has none. Opens and closes each GPU to ask for its free memory. */
export async function findDevices(): Promise<{ devices: DeviceFact[]; problem?: string }> {
  const gpus = loadCuda().devices();
  const facts: DeviceFact[] = [];
  for (const addon of [loadCuda(), cpuAddon()]) {
    for (const info of addon.devices().devices) {
      const driver = addon.open(info.index, {});
      const { freeBytes } = driver.memory();
      await driver.close();
      facts.push({ type: info.type, index: info.index, name: info.name, totalBytes: info.totalBytes, freeBytes, features: info.features });
    }
  }
  return { devices: facts, problem: gpus.problem };
}

/** Free memory of the devices, as the planner takes it. */
export async function deviceReport(): Promise<DeviceReport> {
  const { devices } = await findDevices();
  return devices.map(({ type, index, freeBytes }) => [type === 'cpu' ? 'cpu' : index, freeBytes] as const);
}
