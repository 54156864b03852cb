import { ConfigError } from '@q/config';
import { loadAddon, type CpuAddon } from './load.js';

export { addonCandidates, loadAddon, type CpuAddon, type CpuCeilings, type CpuIsa } from './load.js';

const most = 1024;

function checkThreads(threads: number | undefined): number | undefined {
  if (threads === undefined || (Number.isInteger(threads) && threads >= 1 && threads <= most)) return threads;
  throw new ConfigError('kernels-cpu', 'threads is out of range', { threads, expected: `1 to ${most}` });
}

/**
 * The CPU's drivers, by the native addon. Loads it on each call; Node keeps one copy.
 * @throws NativeError when the addon cannot be loaded
 */
export function cpuAddon(): CpuAddon {
  const native = loadAddon();
  return {
    abi: native.abi,
    devices: () => native.devices(),
    ceilings: (threads) => native.ceilings(checkThreads(threads)),
    open(index, options = {}) {
      const { threads, isa, ...unknown } = options;
      const [key] = Object.keys(unknown);
      if (key !== undefined)
        throw new ConfigError('kernels-cpu', `unknown option "${key}"`, { fix: 'use threads or isa' });
      if (index !== 0) throw new ConfigError('kernels-cpu', 'there is one CPU device', { index, expected: 0 });
      checkThreads(threads);
      if (isa !== undefined && !['scalar', 'avx2', 'avx512'].includes(isa)) {
        throw new ConfigError('kernels-cpu', 'unknown instruction set', { isa, expected: 'scalar, avx2 or avx512' });
      }
      return native.open(index, { threads, isa });
    },
  };
}
