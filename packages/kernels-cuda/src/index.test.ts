import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { abiHash } from '@q/tensor';
import { afterAll, describe, expect, it } from 'vitest';
import { addonPath, buildCommand, loadCuda } from './index.js';

const dir = mkdtempSync(join(tmpdir(), 'q-cuda-'));
afterAll(() => rmSync(dir, { recursive: true }));

describe('loadCuda', () => {
  it('gives no devices and the reason when it is not built', () => {
    const addon = loadCuda(join(dir, 'missing.node'));
    expect(addon.devices()).toEqual({ devices: [], problem: `not built; build it with: ${buildCommand}` });
    expect(() => addon.open(0, {})).toThrow(/cuda:0 cannot be opened: not built/);
  });

  it('gives no devices and the reason when the file is no addon', () => {
    const path = join(dir, 'broken.node');
    writeFileSync(path, 'not a library');
    expect(loadCuda(path).devices().problem).toMatch(/^the addon cannot be loaded: /);
  });

  it('refuses an addon of another command table', () => {
    const path = join(dir, 'other.cjs');
    writeFileSync(path, 'module.exports = { abi: "00000000", devices: () => ({ devices: [] }), open: () => undefined };');
    expect(loadCuda(path).devices().problem).toContain(`built against command table 00000000, this is ${abiHash}`);
  });
});

describe.runIf(existsSync(addonPath))('the built addon', () => {
  it('was built against this command table', () => {
    expect(loadCuda().abi).toBe(abiHash);
  });

  it('lists devices, or says precisely why there are none', () => {
    const { devices, problem } = loadCuda().devices();
    for (const device of devices) {
      expect(device).toMatchObject({ type: 'cuda', mapsFiles: false });
      expect(device.features.computeCapability).toMatch(/^\d+\.\d$/);
    }
    if (devices.length === 0) expect(problem).toMatch(/no NVIDIA driver|too old|finds no device|cannot start|compute capability/);
  });

  it('refuses to open a device that is not there, with the reason', () => {
    expect(() => loadCuda().open(99, {})).toThrow(/no usable device cuda:99/);
  });
});
