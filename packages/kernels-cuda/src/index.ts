import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { abiHash, type Addon, type DriverFailure } from '@q/tensor';
import { explainProbe, type NativeCuda } from './probe.js';

export { findNvcc, oldestNvcc } from '../scripts/find-nvcc.mjs';
export { explainProbe, runsOn, type CudaProbe, type Diagnosis, type NativeCuda } from './probe.js';

const require = createRequire(import.meta.url);

/** Where a source build leaves the addon. */
export const addonPath: string = fileURLToPath(new URL('../build/Release/q_cuda.node', import.meta.url));

/**
 * The command that builds the addon where this package lies, from an installed package too (its bin `q-build-cuda`).
 */
export const buildCommand: string = `node "${fileURLToPath(new URL('../scripts/build-native.mjs', import.meta.url))}"`;

const cannotOpen = (index: number, ...reasons: (string | undefined)[]): DriverFailure =>
  Object.assign(new Error(`cuda:${index} cannot be opened: ${reasons.filter(Boolean).join('; ')}`), {
    code: 'device' as const,
  });

/** An addon without devices; `open` throws with the same reason that `devices` gives. */
const unavailable = (problem: string, fix: string): Addon => ({
  abi: abiHash,
  devices: () => ({ devices: [], problem, fix }),
  open: (index) => {
    throw cannotOpen(index, problem, fix);
  },
});

/** The contract of an addon over what the native one gives. */
const addonOf = (native: NativeCuda): Addon => ({
  abi: native.abi,
  devices: () => explainProbe(native.probe(), buildCommand),
  open: (index) => {
    const { devices, problem, fix } = explainProbe(native.probe(), buildCommand);
    if (devices.some((info) => info.index === index)) return native.open(index);
    throw cannotOpen(
      index,
      devices.length > 0 ? `there is ${devices.map((info) => `cuda:${info.index}`).join(', ')}` : undefined,
      problem,
      fix,
    );
  },
});

/**
 * The CUDA addon. Never throws: where it is not built, cannot be loaded or was built from other sources, the result has
 * no devices and says why in `problem`. Loading it starts nothing on a GPU.
 */
export function loadCuda(path: string = addonPath): Addon {
  if (!existsSync(path)) return unavailable('not built', `build it with the CUDA toolkit: ${buildCommand}`);
  const again = `build it again: ${buildCommand}`;
  let native: NativeCuda;
  try {
    native = require(path) as NativeCuda;
  } catch (error) {
    return unavailable(`the addon cannot be loaded: ${error instanceof Error ? error.message : String(error)}`, again);
  }
  if (native.abi !== abiHash)
    return unavailable(`the addon was built against command table ${native.abi}, this is ${abiHash}`, again);
  if (typeof native.probe !== 'function')
    return unavailable('the addon was built from another version of this package', again);
  return addonOf(native);
}
