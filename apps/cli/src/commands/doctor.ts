import { spawnSync } from 'node:child_process';
import { arch, availableParallelism, cpus, platform, release, totalmem } from 'node:os';
import { addonCandidates, hubEnvironment, listDevices, tensor } from '@q/transformers';
import type { Command } from 'commander';
import { addOutputFlags } from '../flags.js';
import { bytes, colors, print, printFields, printJson } from '../output.js';
import type { Context } from '../program.js';
import { version } from '../version.js';

export function addDoctor(program: Command, _: Context): void {
  addOutputFlags(program.command('doctor').description('Check what this machine has: CPU features, native addons, compiler, GPUs.')).action(({ json }: { json?: boolean }) => {
    const report = examine();
    if (report.problems.length > 0) process.exitCode = 1;
    if (json) return printJson(report);
    show(report);
  });
}

/** First line of what a program prints for `--version`; undefined when it is not there. */
function versionOf(command: string, args = ['--version']): string | undefined {
  const { status, stdout } = spawnSync(command, args, { encoding: 'utf8', timeout: 10_000 });
  return status === 0 ? stdout.trim().split('\n')[0] : undefined;
}

/** nvcc prints its release on the fourth line. */
function nvccRelease(): string | undefined {
  const { status, stdout } = spawnSync('nvcc', ['--version'], { encoding: 'utf8', timeout: 10_000 });
  return status === 0 ? (/release [\d.]+/.exec(stdout)?.[0] ?? 'unknown release') : undefined;
}

function examine() {
  const reports = listDevices();
  const [cpuDevices, gpus] = (['cpu', 'cuda'] as const).map((wanted) => reports.find(({ type }) => type === wanted)!);
  const devices = [...cpuDevices.devices, ...gpus.devices];
  const { cacheDir, offline, endpoint } = hubEnvironment();
  const [major, minor] = process.versions.node.split('.').map(Number);
  const problems = [
    ...(major > 20 || (major === 20 && minor >= 17) ? [] : [`Node.js ${process.version} is too old; install 20.17 or newer`]),
    ...(cpuDevices.devices.length > 0 ? [] : [cpuDevices.problem ?? 'the CPU addon reports no device']),
  ];
  return {
    q: version,
    node: process.version,
    system: `${platform()} ${release()} ${arch()}`,
    cpu: { name: cpus()[0]?.model ?? 'unknown', threads: availableParallelism(), memoryBytes: totalmem() },
    addon: { loaded: cpuDevices.devices.length > 0, abi: tensor.abiHash, candidates: addonCandidates() },
    devices,
    noGpu: gpus.problem === undefined ? undefined : [gpus.problem, gpus.fix].filter(Boolean).join('; '),
    tools: { compiler: versionOf('c++') ?? versionOf('g++') ?? versionOf('clang++'), cmake: versionOf('cmake'), make: versionOf('make') ?? versionOf('ninja'), nvcc: nvccRelease() },
    driver: versionOf('nvidia-smi', ['--query-gpu=name,memory.total,driver_version', '--format=csv,noheader']),
    hub: { cacheDir, offline, endpoint },
    problems,
  };
}

type Report = ReturnType<typeof examine>;

function show({ q, node, system, cpu, addon, devices, noGpu, tools, driver, hub, problems }: Report): void {
  const needed = (value: string | undefined, packageName: string) => value ?? `${colors.yellow('not found')} (only a build from source needs it: apt-get install ${packageName})`;
  printFields([
    ['q', q], ['node', node], ['system', system], ['cpu', `${cpu.name}, ${cpu.threads} threads, ${bytes(cpu.memoryBytes)}`], ['cpu addon', addon.loaded ? `loaded (${addon.abi})` : colors.red('not loaded')],
    ['compiler', needed(tools.compiler, 'g++')], ['cmake', needed(tools.cmake, 'cmake')], ['make', needed(tools.make, 'make')], ['nvcc', tools.nvcc ?? 'not found (only a build of the CUDA kernels needs it)'],
    ['nvidia-smi', driver ?? 'not found, or it finds no GPU'], ['cuda', noGpu ?? 'ready'], ['hub cache', `${hub.cacheDir}${hub.offline ? ' (offline)' : ''}`],
  ]);
  for (const { type, index, name, totalBytes, features } of devices) {
    print();
    print(`${colors.bold(tensor.deviceName({ type, index }))}  ${name}, ${bytes(totalBytes)}`);
    printFields(Object.entries(features).map(([feature, value]) => [`  ${feature}`, String(value)] as const));
  }
  print();
  print(problems.length === 0 ? colors.green('No problems found.') : colors.red(problems.join('\n')));
}
