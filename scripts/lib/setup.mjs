// Brings a clone to the point where it can run: tools, packages, builds. Does nothing when nothing changed.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { findNvcc } from '../../packages/kernels-cuda/scripts/find-nvcc.mjs';
import { has, pnpmCommand, root, say, step, turboCommand } from './commands.mjs';
import { dependencyHash, readStamp, sourceHash, writeStamp } from './stamps.mjs';

const addon = join(root, 'packages/kernels-cpu/build/Release/q_cpu.node');

function fail(...lines) {
  say(lines.join('\n'));
  process.exit(1);
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 17)) return;
  fail(
    `Q needs Node.js 20.17 or newer, and this is ${process.version}.`,
    'Install a newer one: https://nodejs.org/en/download',
  );
}

/** Only a build of the native code needs these. */
function checkTools() {
  const missing = [
    has('cmake') ? undefined : 'cmake',
    [process.env.CXX, 'c++', 'g++', 'clang++'].filter(Boolean).some(has) ? undefined : 'a C++ compiler',
    has('make') || has('ninja') ? undefined : 'make',
  ].filter(Boolean);
  if (missing.length === 0) return;
  fail(
    `Building the native code needs ${missing.join(' and ')}, not found on the PATH. Install with:`,
    ...(process.platform === 'darwin'
      ? ['  xcode-select --install && brew install cmake']
      : ['  Debian, Ubuntu:  apt-get install g++ make cmake', '  Fedora:          dnf install gcc-c++ make cmake']),
  );
}

/**
 * Compiling the CUDA kernels takes minutes, so without an NVIDIA driver set-up leaves them out, unless Q_CUDA_BUILD=on
 * asks for them.
 */
export const buildEnvironment = () => ({
  Q_CUDA_BUILD:
    process.env.Q_CUDA_BUILD ?? (existsSync('/proc/driver/nvidia/version') || has('nvidia-smi') ? 'on' : 'off'),
});

/** @param all build every package instead of what the CLI needs */
export function setup({ all = false } = {}) {
  checkNode();
  const stamp = readStamp();
  const dependencies = dependencyHash();
  const installed = stamp.dependencies === dependencies && existsSync(join(root, 'node_modules/.modules.yaml'));
  const isBuilt = (hash) => installed && existsSync(addon) && (stamp.all === hash || (!all && stamp.cli === hash));
  if (isBuilt(sourceHash())) return;
  if (!existsSync(addon)) checkTools();
  if (!installed) {
    step('Installing packages', pnpmCommand(['install', '--frozen-lockfile', '--prefer-offline']), {
      env: { CI: 'true' },
    });
    writeStamp({ dependencies, cli: undefined, all: undefined });
  }
  const filter = all ? [] : ['--filter=@q/cli...'];
  step(
    all ? 'Building all packages' : 'Building the CLI and its packages',
    turboCommand(['run', 'build', ...filter, '--concurrency=2', '--output-logs=errors-only', '--ui=stream']),
    { env: buildEnvironment() },
  );
  if (buildEnvironment().Q_CUDA_BUILD === 'on' && !findNvcc())
    say(
      'The CUDA device is not built: no nvcc in CUDACXX, CUDA_HOME, CUDA_PATH, on the PATH or in /usr/local/cuda/bin.',
    );
  writeStamp({ [all ? 'all' : 'cli']: sourceHash() });
}
