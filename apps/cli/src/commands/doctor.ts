import { spawnSync } from 'node:child_process';
import { arch, availableParallelism, cpus, platform, release, totalmem } from 'node:os';
import { addonCandidates, cudaCompiler, hubEnvironment, listDevices, tensor } from '@q/transformers';
import type { Command } from 'commander';
import { diagnose } from '../doctor.js';
import { addOutputFlags } from '../flags.js';
import { bytes, paint, print, printFields, printJson, type Part } from '../output.js';
import type { Context } from '../program.js';
import { version } from '../version.js';

export function addDoctor(program: Command, _: Context): void {
  addOutputFlags(
    program.command('doctor').description('Check what this machine has: CPU features, native addons, compiler, GPUs.'),
  ).action(({ json }: { json?: boolean }) => {
    const report = examine();
    if (report.problems.length > 0) process.exitCode = 1;
    if (json) return printJson(report);
    show(report);
  });
}

/** What a program prints, without the spaces around it; undefined when it is not there or fails. */
function outputOf(command: string, args: readonly string[]): string | undefined {
  const { status, stdout } = spawnSync(command, args, { encoding: 'utf8', timeout: 10_000 });
  return status === 0 ? stdout.trim() : undefined;
}

/** First line of what a program prints for `--version`. */
const versionOf = (command: string): string | undefined => outputOf(command, ['--version'])?.split('\n')[0];

function examine() {
  const devices = listDevices();
  const { cacheDir, offline, endpoint } = hubEnvironment();
  const nvidiaSmi = outputOf('nvidia-smi', [
    '--query-gpu=index,name,memory.total,driver_version',
    '--format=csv,noheader',
  ])
    ?.split('\n')
    .filter(Boolean);
  const { CUDA_VISIBLE_DEVICES: visibleDevices } = process.env;
  const nvcc = cudaCompiler();
  const verdict = diagnose({ node: process.version, devices, nvidiaSmi, visibleDevices, nvcc });
  return {
    q: version,
    node: process.version,
    system: `${platform()} ${release()} ${arch()}`,
    cpu: { name: cpus()[0]?.model ?? 'unknown', threads: availableParallelism(), memoryBytes: totalmem() },
    addon: {
      loaded: devices.some(({ type, devices: found }) => type === 'cpu' && found.length > 0),
      abi: tensor.abiHash,
      candidates: addonCandidates(),
    },
    devices: devices.flatMap((report) => report.devices),
    cuda: verdict.cuda,
    noGpu: verdict.noGpu,
    tools: {
      compiler: versionOf('c++') ?? versionOf('g++') ?? versionOf('clang++'),
      cmake: versionOf('cmake'),
      make: versionOf('make') ?? versionOf('ninja'),
      nvcc: nvcc && { path: nvcc.path, release: nvcc.release },
    },
    nvcc: verdict.nvcc,
    nvidiaSmi,
    visibleDevices,
    hub: { cacheDir, offline, endpoint },
    problems: verdict.problems,
    warnings: verdict.warnings,
  };
}

type Report = ReturnType<typeof examine>;

function show({
  q,
  node,
  system,
  cpu,
  addon,
  devices,
  cuda,
  tools,
  nvcc,
  nvidiaSmi,
  visibleDevices,
  hub,
  problems,
  warnings,
}: Report): void {
  const needed = (value: string | undefined, packageName: string): Part | Part[] =>
    value ?? [paint.yellow('not found'), ` (only a build from source needs it: apt-get install ${packageName})`];
  printFields([
    ['q', q],
    ['node', node],
    ['system', system],
    ['cpu', `${cpu.name}, ${cpu.threads} threads, ${bytes(cpu.memoryBytes)}`],
    ['cpu addon', addon.loaded ? `loaded (${addon.abi})` : paint.red('not loaded')],
    ['compiler', needed(tools.compiler, 'g++')],
    ['cmake', needed(tools.cmake, 'cmake')],
    ['make', needed(tools.make, 'make')],
    ['nvcc', nvcc],
    ...(nvidiaSmi && nvidiaSmi.length > 0 ? nvidiaSmi : ['not found, or it finds no GPU']).map(
      (line) => ['nvidia-smi', line] as const,
    ),
    ['visible', visibleDevices === undefined ? undefined : `CUDA_VISIBLE_DEVICES="${visibleDevices}"`],
    ['cuda', cuda],
    ['hub cache', `${hub.cacheDir}${hub.offline ? ' (offline)' : ''}`],
  ]);
  for (const { type, index, name, totalBytes, features } of devices) {
    print();
    print(paint.bold(tensor.deviceName({ type, index })), `  ${name}, ${bytes(totalBytes)}`);
    printFields(Object.entries(features).map(([feature, value]) => [`  ${feature}`, String(value)] as const));
  }
  print();
  for (const warning of warnings) print(paint.yellow(warning));
  for (const problem of problems) print(paint.red(problem));
  if (problems.length === 0) print(paint.green('No problems found.'));
}
