import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { abiHash, type DriverInfo } from '@q/tensor';
import { afterAll, describe, expect, it } from 'vitest';
import { addonPath, buildCommand, explainProbe, findNvcc, loadCuda, runsOn, type CudaProbe } from './index.js';

const script = fileURLToPath(new URL('../scripts/build-native.mjs', import.meta.url));

const probe: CudaProbe = {
  status: 'cudaSuccess',
  statusText: 'no error',
  driverVersion: '13.0',
  runtimeVersion: '13.0',
  builtFor: '80,90a',
  hasPtx: false,
  devices: [],
};
const gpu = (index: number, computeCapability: string): { index: number; info: DriverInfo } => ({
  index,
  info: {
    type: 'cuda',
    index,
    name: `GPU ${index}`,
    totalBytes: 2 ** 34,
    mapsFiles: false,
    activationDtypes: ['f32', 'f16'],
    features: { computeCapability },
  },
});

const dir = mkdtempSync(join(tmpdir(), 'q-cuda-'));
afterAll(() => rmSync(dir, { recursive: true }));

describe('loadCuda', () => {
  it('gives no devices and the reason when it is not built', () => {
    const addon = loadCuda(join(dir, 'missing.node'));
    expect(addon.devices()).toEqual({
      devices: [],
      problem: 'not built',
      fix: `build it with the CUDA toolkit: ${buildCommand}`,
    });
    expect(() => addon.open(0, {})).toThrow(/cuda:0 cannot be opened: not built/);
  });

  it('gives no devices and the reason when the file is no addon', () => {
    const path = join(dir, 'broken.node');
    writeFileSync(path, 'not a library');
    expect(loadCuda(path).devices().problem).toMatch(/^the addon cannot be loaded: /);
  });

  it('refuses an addon of another command table', () => {
    const path = join(dir, 'other.cjs');
    writeFileSync(
      path,
      'module.exports = { abi: "00000000", devices: () => ({ devices: [] }), open: () => undefined };',
    );
    expect(loadCuda(path).devices().problem).toContain(`built against command table 00000000, this is ${abiHash}`);
  });
});

describe('loadCuda with an addon', () => {
  const withProbe = (name: string, found: object) => {
    const path = join(dir, `${name}.cjs`);
    writeFileSync(
      path,
      `module.exports = { abi: ${JSON.stringify(abiHash)}, probe: () => (${JSON.stringify(found)}), open: (index) => ({ opened: index }) };`,
    );
    return loadCuda(path);
  };

  it('opens the devices that it lists, and says which there are when asked for another', () => {
    const addon = withProbe('two', { ...probe, devices: [gpu(0, '9.0'), gpu(1, '7.0')] });
    expect(addon.devices().devices.map(({ index }) => index)).toEqual([0]);
    expect(addon.open(0, {})).toEqual({ opened: 0 });
    expect(() => addon.open(1, {})).toThrow(
      /^cuda:1 cannot be opened: there is cuda:0; GPU 1 \(device 1\) has compute capability 7.0; /,
    );
  });

  it('refuses one of an older version of this package', () => {
    const path = join(dir, 'old.cjs');
    writeFileSync(path, `module.exports = { abi: ${JSON.stringify(abiHash)}, devices: () => ({ devices: [] }) };`);
    expect(loadCuda(path).devices()).toMatchObject({
      problem: expect.stringContaining('another version of this package'),
      fix: `build it again: ${buildCommand}`,
    });
  });
});

describe('why there is no GPU', () => {
  it.each<[string, Partial<CudaProbe>, string, RegExp]>([
    [
      'no driver',
      {
        status: 'cudaErrorInsufficientDriver',
        libraryProblem: 'libcuda.so.1: cannot open shared object file',
        driverVersion: '0.0',
      },
      'no NVIDIA driver: libcuda.so.1 cannot be loaded (libcuda.so.1: cannot open shared object file)',
      /install the NVIDIA driver/,
    ],
    [
      'an old driver',
      { status: 'cudaErrorInsufficientDriver', driverVersion: '11.4' },
      'the NVIDIA driver is too old: it supports CUDA 11.4, this build needs 13.0',
      /a driver for CUDA 13.0/,
    ],
    [
      'no device',
      { status: 'cudaErrorNoDevice' },
      'the NVIDIA driver finds no device (none fitted, or CUDA_VISIBLE_DEVICES hides them)',
      /unset CUDA_VISIBLE_DEVICES/,
    ],
    [
      'an empty list',
      {},
      'the NVIDIA driver finds no device (none fitted, or CUDA_VISIBLE_DEVICES hides them)',
      /nvidia-smi/,
    ],
    [
      'another answer',
      { status: 'cudaErrorSystemNotReady', statusText: 'system not yet initialized' },
      'CUDA cannot start: system not yet initialized (cudaErrorSystemNotReady)',
      /nvidia-smi/,
    ],
    [
      'another architecture',
      { devices: [gpu(0, '7.5')] },
      'GPU 0 (device 0) has compute capability 7.5; this build has code for 80,90a',
      /^build for it: BUILD --arch 75$/,
    ],
    [
      'a new one',
      { devices: [gpu(0, '9.0')], builtFor: '80' },
      'GPU 0 (device 0) has compute capability 9.0; this build has code for 80',
      /^build for it: BUILD --arch 90a$/,
    ],
    [
      'one that is too old',
      { devices: [gpu(0, '6.1')] },
      'GPU 0 (device 0) has compute capability 6.1; this build has code for 80,90a',
      /7.5 or newer are supported/,
    ],
    [
      'a broken device',
      { devices: [{ index: 0, problem: 'ECC error' }] },
      'device 0 cannot be used: ECC error',
      /nvidia-smi/,
    ],
  ])('%s', (_, found, problem, fix) =>
    expect(explainProbe({ ...probe, ...found }, 'BUILD')).toEqual({
      devices: [],
      problem,
      fix: expect.stringMatching(fix),
    }),
  );

  it('names every device that cannot be used, and lists the others', () => {
    const { devices, problem } = explainProbe(
      { ...probe, devices: [gpu(0, '7.5'), gpu(1, '9.0'), { index: 2, problem: 'lost' }, gpu(3, '8.6')] },
      'BUILD',
    );
    expect(devices.map(({ index }) => index)).toEqual([1, 3]);
    expect(problem).toBe(
      'GPU 0 (device 0) has compute capability 7.5; this build has code for 80,90a; device 2 cannot be used: lost',
    );
    expect(explainProbe({ ...probe, devices: [gpu(0, '9.0')] }, 'BUILD')).not.toHaveProperty('problem');
  });

  it.each([
    ['90a', false, '9.0', true],
    ['90a', false, '10.0', false],
    ['90a', true, '10.0', true],
    ['80', false, '8.9', true],
    ['86', false, '8.0', false],
    ['80,90a', false, '7.5', false],
    ['75,120', true, '12.1', true],
    ['75,120', true, '10.0', false],
    ['100', false, '10.3', true],
  ])('code for %s (PTX %s) on %s: %s', (builtFor, hasPtx, capability, runs) =>
    expect(runsOn(builtFor, hasPtx, capability)).toBe(runs),
  );
});

describe('the build', () => {
  const nvcc = (name: string, release: string) => {
    const path = join(dir, name, 'bin', 'nvcc');
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `#!/bin/sh\necho "Cuda compilation tools, release ${release}, V${release}.1"\n`, {
      mode: 0o755,
    });
    return path;
  };

  it('takes the nvcc of CUDACXX, then CUDA_HOME or CUDA_PATH, then of the PATH', () => {
    const [first, second, third] = [nvcc('a', '12.8'), nvcc('b', '12.9'), nvcc('c', '13.1')];
    const PATH = `${dirname(third)}:/usr/bin:/bin`;
    const home = (path: string) => dirname(dirname(path));
    expect(findNvcc({ PATH, CUDACXX: first, CUDA_HOME: home(second) })).toEqual({ path: first, release: '12.8' });
    expect(findNvcc({ PATH, CUDACXX: '/nowhere/nvcc', CUDA_HOME: home(second) })).toEqual({
      path: second,
      release: '12.9',
    });
    expect(findNvcc({ PATH, CUDA_PATH: home(second) })).toEqual({ path: second, release: '12.9' });
    expect(findNvcc({ PATH })).toEqual({ path: 'nvcc', release: '13.1' });
  });

  it('fails when it cannot be done, unless it was asked to build what is available', () => {
    const run = (...options: string[]) =>
      spawnSync(process.execPath, [script, ...options], {
        encoding: 'utf8',
        env: { ...process.env, Q_CUDA_BUILD: 'off' },
      });
    expect(run()).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringContaining('the CUDA driver is not built: Q_CUDA_BUILD is off'),
    });
    expect(run('--if-available')).toMatchObject({
      status: 0,
      stderr: '',
      stdout: expect.stringContaining('not built'),
    });
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
    if (devices.length === 0)
      expect(problem).toMatch(/no NVIDIA driver|too old|finds no device|cannot start|compute capability/);
  });

  it('refuses to open a device that is not there, with the reason', () => {
    expect(() => loadCuda().open(99, {})).toThrow(/^cuda:99 cannot be opened: /);
  });
});
