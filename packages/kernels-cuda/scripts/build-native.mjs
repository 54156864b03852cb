#!/usr/bin/env node
// Compiles the addon with cmake-js into build/Release/q_cuda.node; in the repository, and as q-build-cuda in an installed package. Without
// nvcc it says so in one line and succeeds: the package then reports zero devices. Options: --arch 90a | "80;90a" | release (default: $Q_CUDA_ARCHS, else 90a), --jobs N,
// --tests (the stand-alone GPU tests, build/q_test_*), --verbose.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const require = createRequire(import.meta.url);
const root = fileURLToPath(new URL('..', import.meta.url));
const { values } = parseArgs({ options: { arch: { type: 'string' }, jobs: { type: 'string' }, tests: { type: 'boolean', default: false }, verbose: { type: 'boolean', default: false } } });

const home = process.env.CUDA_HOME ?? process.env.CUDA_PATH;
const nvcc = [process.env.CUDACXX, home && join(home, 'bin', 'nvcc'), 'nvcc', '/usr/local/cuda/bin/nvcc']
  .filter(Boolean)
  .find((path) => spawnSync(path, ['--version'], { stdio: 'ignore' }).status === 0);

if (values.tests && !existsSync(join(root, 'csrc', 'test'))) {
  console.error('kernels-cuda: --tests needs csrc/test, which only the repository has');
  process.exit(2);
}

if (process.env.Q_CUDA_BUILD === 'off') {
  console.log('kernels-cuda: the CUDA driver is not built (Q_CUDA_BUILD is off)');
} else if (!nvcc) {
  console.log('kernels-cuda: no nvcc found, the CUDA driver is not built (install the CUDA toolkit 12.8 or newer, or set CUDA_HOME)');
} else {
  const defines = {
    Q_OPS_DIR: dirname(require.resolve('@q/tensor/native/q_ops.h')),
    NODE_ADDON_API_DIR: dirname(require.resolve('node-addon-api/package.json')),
    Q_CUDA_ARCHS: values.arch ?? process.env.Q_CUDA_ARCHS ?? '90a',
    Q_TESTS: values.tests ? 'ON' : 'OFF',
  };
  const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js');
  const options = ['-d', root, '--log-level', 'warn', ...Object.entries(defines).map(([name, value]) => `--CD${name}=${value}`)];
  // The compiler goes in as CUDACXX: a changed CMAKE_CUDA_COMPILER makes CMake start over without the definitions above.
  const env = { ...process.env, CUDACXX: nvcc };
  const cmake = (...args) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [cmakeJs, ...args, ...options], { cwd: root, env, encoding: 'utf8', maxBuffer: 2 ** 28, stdio: values.verbose ? 'inherit' : 'pipe' });
    if (status !== 0 && !values.verbose) console.error(`${stdout}${stderr}`.split('\n').slice(-60).join('\n'));
    return status === 0;
  };
  const built = cmake('configure') && cmake('build', '-p', values.jobs ?? String(availableParallelism()));
  if (!built || !existsSync(join(root, 'build', 'Release', 'q_cuda.node'))) {
    console.error('kernels-cuda: the native build failed; its messages are above');
    process.exit(1);
  }
}
