#!/usr/bin/env node
// Compiles the addon with cmake-js into build/Release/q_cuda.node; in the repository, and as q-build-cuda in an
// installed package. Fails where there is no nvcc. Options: --arch 90a | "80;90a" | release (default: $Q_CUDA_ARCHS,
// else 90a), --jobs N, --tests (the stand-alone GPU tests, build/q_test_*), --verbose,
// --if-available (without nvcc, or with Q_CUDA_BUILD=off, say so and succeed: the package then reports zero devices).
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { findNvcc, oldestNvcc } from './find-nvcc.mjs';

const require = createRequire(import.meta.url);
const root = fileURLToPath(new URL('..', import.meta.url));
const { values } = parseArgs({
  options: {
    arch: { type: 'string' },
    jobs: { type: 'string' },
    tests: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
    'if-available': { type: 'boolean', default: false },
  },
});

/** Ends without a build: quietly for a set-up that builds what it can, as a failure for who asked for this one. */
function leaveOut(why) {
  const message = `kernels-cuda: the CUDA driver is not built: ${why}`;
  if (values['if-available']) console.log(message);
  else console.error(message);
  process.exit(values['if-available'] ? 0 : 1);
}

if (values.tests && !existsSync(join(root, 'csrc', 'test'))) {
  console.error('kernels-cuda: --tests needs csrc/test, which only the repository has');
  process.exit(2);
}

if (process.env.Q_CUDA_BUILD === 'off') leaveOut('Q_CUDA_BUILD is off');
const nvcc = findNvcc();
if (!nvcc)
  leaveOut(
    `no nvcc in CUDACXX, CUDA_HOME, CUDA_PATH, on the PATH or in /usr/local/cuda/bin; install the CUDA toolkit ${oldestNvcc} or newer, or set CUDA_HOME`,
  );

const defines = {
  Q_OPS_DIR: dirname(require.resolve('@q/tensor/native/q_ops.h')),
  NODE_ADDON_API_DIR: dirname(require.resolve('node-addon-api/package.json')),
  Q_CUDA_ARCHS: values.arch ?? process.env.Q_CUDA_ARCHS ?? '90a',
  Q_TESTS: values.tests ? 'ON' : 'OFF',
};
const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js');
const options = [
  '-d',
  root,
  '--log-level',
  'warn',
  ...Object.entries(defines).map(([name, value]) => `--CD${name}=${value}`),
];
// The compiler goes in as CUDACXX: a changed CMAKE_CUDA_COMPILER makes CMake start over without the definitions above.
const env = { ...process.env, CUDACXX: nvcc.path };
const cmake = (...args) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [cmakeJs, ...args, ...options], {
    cwd: root,
    env,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    stdio: values.verbose ? 'inherit' : 'pipe',
  });
  if (status !== 0 && !values.verbose) console.error(`${stdout}${stderr}`.split('\n').slice(-60).join('\n'));
  return status === 0;
};
const built = cmake('configure') && cmake('build', '-p', values.jobs ?? String(availableParallelism()));
if (!built || !existsSync(join(root, 'build', 'Release', 'q_cuda.node'))) {
  console.error('kernels-cuda: the native build failed; its messages are above');
  process.exit(1);
}
