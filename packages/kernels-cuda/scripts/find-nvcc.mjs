// Where the CUDA compiler is: used by the build, by the repository's scripts and by `q doctor`, so that all say the
// same.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

/** The oldest release that compiles all architectures of a release build. */
export const oldestNvcc = '12.8';

/**
 * The first nvcc that runs, of CUDACXX, CUDA_HOME or CUDA_PATH, the PATH and /usr/local/cuda.
 * @param {Record<string, string | undefined>} environment
 * @returns {{ path: string, release: string } | undefined}
 */
export function findNvcc(environment = process.env) {
  const home = environment.CUDA_HOME ?? environment.CUDA_PATH;
  for (const path of [environment.CUDACXX, home && join(home, 'bin', 'nvcc'), 'nvcc', '/usr/local/cuda/bin/nvcc']) {
    if (!path) continue;
    const { status, stdout } = spawnSync(path, ['--version'], {
      encoding: 'utf8',
      env: { ...environment },
      timeout: 10_000,
    });
    if (status === 0) return { path, release: /release ([\d.]+)/.exec(stdout)?.[1] ?? 'unknown' };
  }
  return undefined;
}
