import { existsSync, realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { NativeError } from '@q/config';
import { abiHash, type Addon, type Driver } from '@q/tensor';

/** Instruction sets that the kernels come in; on ARM, `scalar` is what the compiler makes of NEON. */
export type CpuIsa = 'scalar' | 'avx2' | 'avx512';

/** What a machine can do at most, per second and with all threads; 0 where it has no such instruction. */
export interface CpuCeilings {
  readonly readBytesPerSecond: number;
  /** Multiplications and additions of f32, in registers. */
  readonly f32FlopsPerSecond: number;
  /** The same of 8-bit integers with AVX-512 VNNI. */
  readonly vnniOpsPerSecond: number;
  /** The same with AMX tiles. */
  readonly amxOpsPerSecond: number;
}

/** The CPU's addon: one device, index 0. */
export interface CpuAddon extends Addon {
  /**
   * Measures the machine, best of several passes: about 2 seconds and 1 GiB. @param threads default: the physical cores
   */
  ceilings(threads?: number): Promise<CpuCeilings>;
  /**
   * A driver with its own queue.
   * @param options.threads threads that compute; default: the physical cores this process may use
   * @param options.isa uses at most this instruction set; default: the best of the machine
   * @throws ConfigError for another device index or a thread count that is not 1 to 1024
   */
  open(index: number, options?: { threads?: number; isa?: CpuIsa }): Driver;
}

/** The nearest folder above this file that is the package's own. */
function packageRoot(): string {
  let folder = dirname(realpathSync(fileURLToPath(import.meta.url)));
  while (!existsSync(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
}

/**
 * How to get the addon: builds it where this package lies, whatever package manager put it there; paths are quoted as
 * every shell takes them. In a bundle there is nothing to build from.
 */
function advice(verb: string): string {
  const script = join(packageRoot(), 'scripts', 'build-native.mjs');
  if (!existsSync(script))
    return 'this code is bundled, and an addon cannot be: leave @q/kernels-cpu, @q/kernels-cuda and @q/nano out of the bundle (esbuild: --external:@q/*) and install them beside it';
  return `${verb}: node "${script}"`;
}

/** Where the addon may be, best first: the prebuilt package of this platform, then the package's own build. */
export function addonCandidates(): string[] {
  const { platform, arch } = process;
  return [`@q/kernels-cpu-${platform}-${arch}/q_cpu.node`, join(packageRoot(), 'build', 'Release', 'q_cpu.node')];
}

/**
 * Loads the native addon from the first candidate that exists.
 * @throws NativeError listing what was tried, or saying that the addon was built for another version of `@q/tensor`
 */
export function loadAddon(candidates: readonly string[] = addonCandidates()): CpuAddon {
  const require = createRequire(import.meta.url);
  const tried: string[] = [];
  for (const candidate of candidates) {
    let addon: CpuAddon;
    try {
      addon = require(candidate) as CpuAddon;
    } catch (cause) {
      tried.push(`${candidate}: ${(cause as Error).message.split('\n')[0]}`);
      continue;
    }
    if (addon.abi === abiHash) return addon;
    throw new NativeError('kernels-cpu', 'the native addon was built for another version of @q/tensor', {
      path: candidate,
      got: addon.abi,
      expected: abiHash,
      fix: advice('reinstall, or build it again'),
    });
  }
  throw new NativeError('kernels-cpu', 'no native addon could be loaded', {
    tried,
    why: `there is neither a prebuilt binary for ${process.platform}-${process.arch} nor a local build`,
    fix: advice('build it, which takes a minute and needs g++ 11 or clang 14, make and cmake 3.18, or newer'),
  });
}
