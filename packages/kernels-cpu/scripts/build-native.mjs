#!/usr/bin/env node
// Builds build/Release/q_cpu.node with cmake-js, unless it is already there for these sources; in the repository, and
// as q-build-cpu in an installed package. Headers come from the npm packages node-api-headers and node-addon-api;
// nothing is downloaded. Option: --verbose.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const {
  values: { verbose },
} = parseArgs({ options: { verbose: { type: 'boolean', default: false } } });
const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const tensorNative = dirname(require.resolve('@q/tensor/native/q_ops.h'));
const output = join(root, 'build/Release/q_cpu.node');
const stampFile = join(root, 'build/sources.sha256');

const fingerprint = () => {
  const hash = createHash('sha256').update(
    `${process.platform} ${process.arch} ${process.env.CXX ?? ''} ${process.env.CXXFLAGS ?? ''}`,
  );
  const sources = readdirSync(join(root, 'csrc'), { recursive: true })
    .map(String)
    .filter((name) => /\.(h|cpp)$/.test(name))
    .sort();
  for (const file of [
    ...sources.map((name) => join(root, 'csrc', name)),
    join(root, 'CMakeLists.txt'),
    join(tensorNative, 'q_ops.h'),
  ]) {
    hash.update(file).update(readFileSync(file));
  }
  return hash.digest('hex');
};

const has = (command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;

function checkTools() {
  const install =
    process.platform === 'darwin'
      ? 'xcode-select --install && brew install cmake'
      : 'apt-get install g++ make cmake (Debian, Ubuntu) or dnf install gcc-c++ make cmake (Fedora)';
  const compilers = [process.env.CXX, 'c++', 'g++', 'clang++'].filter(Boolean);
  const missing = [
    has('cmake') ? undefined : 'cmake (3.18 or newer)',
    compilers.some(has) ? undefined : 'a C++20 compiler (g++ 11, clang 14 or newer)',
    has('make') || has('ninja') ? undefined : 'make or ninja',
  ].filter(Boolean);
  if (missing.length === 0) return;
  console.error(
    `[kernels-cpu] cannot build the native addon: ${missing.join(' and ')} not found.\n  Install with: ${install}\n  and run the build again.`,
  );
  process.exit(1);
}

const now = fingerprint();
if (existsSync(output) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === now) process.exit(0);
checkTools();
const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin/cmake-js');
const { status, stdout, stderr } = spawnSync(
  process.execPath,
  [cmakeJs, 'compile', '-d', root, '--config', 'Release', '--parallel', '2', `--CDQ_TENSOR_NATIVE=${tensorNative}`],
  {
    stdio: verbose ? 'inherit' : ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  },
);
if (status !== 0) {
  if (!verbose) console.error(`${stdout}${stderr}`.split('\n').slice(-60).join('\n'));
  console.error(
    '[kernels-cpu] the native build failed; the output above says why (needs g++ 11 or clang 14 and cmake 3.18, or newer)',
  );
  process.exit(status ?? 1);
}
writeFileSync(stampFile, now);
