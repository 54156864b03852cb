import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { abiHash, type Addon, type DriverFailure } from '@q/tensor';

const require = createRequire(import.meta.url);

/** Where a source build leaves the addon. */
export const addonPath: string = fileURLToPath(new URL('../build/Release/q_cuda.node', import.meta.url));

/** The command that builds the addon where this package lies, from an installed package too (its bin `q-build-cuda`). */
export const buildCommand: string = `node ${fileURLToPath(new URL('../scripts/build-native.mjs', import.meta.url))}`;

/** An addon without devices; `open` throws with the same reason that `devices` gives. */
const unavailable = (problem: string): Addon => ({
  abi: abiHash,
  devices: () => ({ devices: [], problem }),
  open: (index) => {
    const failure: DriverFailure = Object.assign(new Error(`cuda:${index} cannot be opened: ${problem}`), { code: 'device' as const });
    throw failure;
  },
});

/**
 * The CUDA addon. Never throws: where it is not built, cannot be loaded or was built against another command table,
 * the result has no devices and says why in `problem`. Loading it starts nothing on a GPU.
 */
export function loadCuda(path: string = addonPath): Addon {
  if (!existsSync(path)) return unavailable(`not built; build it with: ${buildCommand}`);
  let addon: Addon;
  try {
    addon = require(path) as Addon;
  } catch (error) {
    return unavailable(`the addon cannot be loaded: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (addon.abi !== abiHash) {
    return unavailable(`the addon was built against command table ${addon.abi}, this is ${abiHash}; build it again: ${buildCommand}`);
  }
  return addon;
}
