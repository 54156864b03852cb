#!/usr/bin/env node
// Builds the addon with sanitizers, beside the real one, and runs the conformance suite and the fuzzer of calls in it:
//   npm run test:sanitize -- [--only address|thread] [--inputs N] [--seed N] [--filter WORDS] [--isa NAME]
// address: with undefined, over the suite and N calls (default 20,000); thread: over the suite. Needs g++ with libasan,
// libubsan and libtsan, on Linux, and a built repository. The first report ends the run with a status that is not 0.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const string = { type: 'string' };
const { values } = parseArgs({ options: { only: string, inputs: string, seed: string, filter: string, isa: string } });

const sanitizers = {
  address: {
    flags: '-fsanitize=address,undefined -fno-sanitize-recover=all',
    libraries: ['libasan.so', 'libubsan.so'],
    // Node keeps memory until it ends; a handler of its own takes signals before the sanitizer.
    environment: {
      ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=0:exitcode=99:allocator_may_return_null=1',
      UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1:exitcode=99',
    },
    inputs: values.inputs ?? '20000',
  },
  thread: {
    flags: '-fsanitize=thread',
    libraries: ['libtsan.so'],
    // Node itself is not instrumented: what it does alone is not looked at.
    environment: { TSAN_OPTIONS: 'ignore_noninstrumented_modules=1:halt_on_error=1:exitcode=99' },
    inputs: values.inputs ?? '0',
  },
};

const compiler = process.env.CXX ?? 'g++';

function build(name, flags) {
  const folder = join(root, 'build', `sanitize-${name}`);
  const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin/cmake-js');
  const tensor = dirname(require.resolve('@q/tensor/native/q_ops.h'));
  const options = ['compile', '-d', root, '--out', folder, '--config', 'Release', '--parallel', '2'];
  console.log(`building with ${flags}`);
  const { status } = spawnSync(
    process.execPath,
    [cmakeJs, ...options, `--CDQ_TENSOR_NATIVE=${tensor}`, '--log-level', 'warn'],
    {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, CXX: compiler, CXXFLAGS: `${flags} -g1 -fno-omit-frame-pointer` },
    },
  );
  if (status !== 0) process.exit(status ?? 1);
  return join(folder, 'Release', 'q_cpu.node');
}

/** Where the compiler keeps a library; it must be loaded before anything else of the process. */
function libraryPath(name) {
  const { stdout } = spawnSync(compiler, [`-print-file-name=${name}`], { encoding: 'utf8' });
  return stdout.trim();
}

function run(name, addon, { libraries, environment, inputs }) {
  const preload = [...libraries, 'libstdc++.so.6'].map(libraryPath).join(' ');
  const options = Object.entries({ ...values, inputs }).filter(([key]) =>
    ['inputs', 'seed', 'filter', 'isa'].includes(key),
  );
  const argument = JSON.stringify({ addon, ...Object.fromEntries(options) });
  const node = [process.execPath, join(root, 'scripts/sanitized.mjs'), argument];
  // The thread sanitizer has places of its own for memory, which random addresses may take.
  const command = name === 'thread' ? ['setarch', '-R', ...node] : node;
  const { status, signal } = spawnSync(command[0], command.slice(1), {
    stdio: 'inherit',
    env: { ...process.env, ...environment, LD_PRELOAD: preload },
  });
  console.log(`${name}: ${status === 0 ? 'clean' : `ended with ${signal ?? status}`}`);
  return status === 0;
}

const names = values.only ? [values.only] : Object.keys(sanitizers);
let clean = true;
for (const name of names) {
  const sanitizer = sanitizers[name];
  if (!sanitizer) {
    console.error(`test:sanitize: --only takes ${Object.keys(sanitizers).join(' or ')}`);
    process.exit(2);
  }
  clean = run(name, build(name, sanitizer.flags), sanitizer) && clean;
}
process.exit(clean ? 0 : 1);
