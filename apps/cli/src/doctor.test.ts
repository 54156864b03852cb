import type { DeviceReport } from '@q/transformers';
import { describe, expect, it } from 'vitest';
import { diagnose, type Facts } from './doctor.js';

type Device = DeviceReport['devices'][number];
const device = (type: 'cpu' | 'cuda', index: number, features: Device['features'] = {}): Device => ({
  type,
  index,
  name: type === 'cpu' ? 'CPU' : `GPU ${index}`,
  totalBytes: 1,
  mapsFiles: false,
  activationDtypes: ['f32'],
  features,
});
const cpu: DeviceReport = { type: 'cpu', devices: [device('cpu', 0)] };
const facts = (gpus: Partial<DeviceReport>, more: Partial<Facts> = {}): Facts => ({
  node: 'v20.17.0',
  devices: [cpu, { type: 'cuda', devices: [], ...gpus }],
  ...more,
});
const gpus = (...list: readonly (readonly [number, string?])[]) => ({
  devices: list.map(([index, peerAccess]) => device('cuda', index, peerAccess === undefined ? {} : { peerAccess })),
});

describe('GPUs', () => {
  it.each([
    ['not built', 'build it with the CUDA toolkit: BUILD'],
    ['the addon cannot be loaded: libfoo', 'build it again: BUILD'],
    ['no NVIDIA driver: libcuda.so.1 cannot be loaded (not found)', 'install the NVIDIA driver'],
    ['the NVIDIA driver is too old: it supports CUDA 11.4, this build needs 13.0', 'install a driver for CUDA 13.0'],
    [
      'the NVIDIA driver finds no device (none fitted, or CUDA_VISIBLE_DEVICES hides them)',
      'unset CUDA_VISIBLE_DEVICES',
    ],
    ['GPU 0 (device 0) has compute capability 7.0; this build has code for 90a', 'build for it: BUILD --arch 70'],
  ])('none, as %s: says why, and warns where nvidia-smi lists some', (problem, fix) => {
    const why = `${problem}; ${fix}`;
    expect(diagnose(facts({ problem, fix }))).toMatchObject({ cuda: why, noGpu: why, warnings: [], problems: [] });
    expect(diagnose(facts({ problem, fix }, { nvidiaSmi: ['0, A', '1, B'] })).warnings).toEqual([
      `2 GPUs listed by nvidia-smi, and none is used: ${why}`,
    ]);
  });

  it('one or several are ready', () => {
    expect(diagnose(facts(gpus([0]), { nvidiaSmi: ['0, A'] }))).toMatchObject({
      cuda: '1 GPU ready: cuda:0 (GPU 0)',
      warnings: [],
    });
    const two = diagnose(facts(gpus([0, 'cuda:1'], [1, 'cuda:0']), { nvidiaSmi: ['0, A', '1, A'] }));
    expect(two).toMatchObject({ cuda: '2 GPUs ready: cuda:0 (GPU 0), cuda:1 (GPU 1)', warnings: [] });
    expect(two).not.toHaveProperty('noGpu');
  });

  it('some are left out: says which and why', () => {
    const problem = 'GPU 1 (device 1) has compute capability 7.0; this build has code for 90a';
    expect(diagnose(facts({ ...gpus([0]), problem, fix: 'build' })).warnings).toEqual([
      `not every GPU is used: ${problem}; build`,
    ]);
    expect(diagnose(facts(gpus([0]), { nvidiaSmi: ['0, A', '1, A'], visibleDevices: '1' })).warnings).toEqual([
      '2 GPUs listed by nvidia-smi, and CUDA sees 1 (CUDA_VISIBLE_DEVICES is "1")',
    ]);
  });

  it('tells when copies between them take the long way', () => {
    expect(diagnose(facts(gpus([0, 'none'], [1, 'none']))).warnings).toEqual([
      'cuda:0, cuda:1 cannot reach other GPUs directly: copies between them go through host memory',
    ]);
  });
});

describe('the rest', () => {
  it('an old Node and a missing CPU addon are problems', () => {
    expect(
      diagnose({
        ...facts({ problem: 'not built' }),
        node: 'v20.16.9',
        devices: [{ type: 'cpu', devices: [], problem: 'no addon' }],
      }).problems,
    ).toEqual(['Node.js v20.16.9 is too old; install 20.17 or newer', 'no addon']);
    expect(diagnose(facts({}, { node: 'v22.0.0' })).problems).toEqual([]);
  });

  it('nvcc is found, too old or missing', () => {
    const nvcc = (release: string) =>
      diagnose(facts({}, { nvcc: { path: '/cuda/bin/nvcc', release, oldest: '12.8' } })).nvcc;
    expect(nvcc('13.0')).toBe('release 13.0 (/cuda/bin/nvcc)');
    expect(nvcc('12.8')).not.toContain('too old');
    expect(nvcc('12.6')).toBe('release 12.6 (/cuda/bin/nvcc), too old: the kernels need 12.8 or newer');
    expect(diagnose(facts({})).nvcc).toContain('not found');
  });
});
