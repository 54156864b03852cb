// Sets up everything, then checks the format and runs lint, type check, tests and package checks of all packages, one
// after the other; in the end the fuzzers, briefly.
import { buildEnvironment, setup } from './lib/setup.mjs';
import { findNvcc } from '../packages/kernels-cuda/scripts/find-nvcc.mjs';
import { step, turboCommand } from './lib/commands.mjs';

// Where there is a CUDA compiler, the kernels must compile, GPU or not.
if (findNvcc()) process.env.Q_CUDA_BUILD ??= 'on';

setup({ all: true });
step('Checking the format', [process.execPath, 'scripts/format.mjs', '--check']);
step(
  'Checking all packages',
  turboCommand([
    'run',
    'lint',
    'typecheck',
    'test',
    'package',
    '--concurrency=1',
    '--output-logs=new-only',
    '--ui=stream',
    ...process.argv.slice(2),
  ]),
  { env: buildEnvironment(), show: true },
);
step('Testing the fuzzers', [process.execPath, '--test', 'tooling/fuzz/fuzz.test.mjs']);
// A glance with inputs that are always the same; npm run fuzz looks longer and at others.
step('Fuzzing', [process.execPath, 'scripts/fuzz.mjs', '--seed', '1', '--inputs', '150', '--seconds', '6']);
