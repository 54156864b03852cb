// Sets up everything, then checks the format, runs lint, type check and package checks of all packages, then their
// tests; in the end the fuzzers, briefly.
import { buildEnvironment, setup } from './lib/setup.mjs';
import { findNvcc } from '../packages/kernels-cuda/scripts/find-nvcc.mjs';
import { step, turboCommand } from './lib/commands.mjs';

// Where there is a CUDA compiler, the kernels must compile, GPU or not.
if (findNvcc()) process.env.Q_CUDA_BUILD ??= 'on';

setup({ all: true });
step('Checking the format', [process.execPath, 'scripts/format.mjs', '--check']);
const inAllPackages = (what, tasks, concurrency) =>
  step(
    what,
    turboCommand([
      'run',
      ...tasks,
      `--concurrency=${concurrency}`,
      '--output-logs=new-only',
      '--ui=stream',
      ...process.argv.slice(2),
    ]),
    { env: buildEnvironment(), show: true },
  );
// Each of these has one thread; the tests of a package take all processors.
inAllPackages('Checking all packages', ['lint', 'typecheck', 'package'], 2);
inAllPackages('Testing all packages', ['test'], 1);
step('Testing the tools', [process.execPath, '--test', 'tooling/lint.test.mjs', 'tooling/fuzz/fuzz.test.mjs']);
// A glance with inputs that are always the same; npm run fuzz looks longer and at others.
step('Fuzzing', [process.execPath, 'scripts/fuzz.mjs', '--seed', '1', '--inputs', '150', '--seconds', '6']);
