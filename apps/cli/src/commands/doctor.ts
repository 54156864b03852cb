import { spawnSync } from 'node:child_process';
import { arch, availableParallelism, cpus, platform, release, totalmem } from 'node:os';
import { addonCandidates, hubEnvironment, listDevices, tensor } from '@q/transformers';
import type { Command } from 'commander';
import pc from 'picocolors';
import { addOutputFlags } from '../flags.js';
import { bytes, print, printFields, printJson } from '../output.js';
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
  const devices = listDevices();
  const cpu = devices.find(({ type }) => type === 'cpu')!;
  const { cacheDir, offline, endpoint } = hubEnvironment();
  const found = {
    q: version,
    node: process.version,
    system: `${platform()} ${release()} ${arch()}`,
    cpu: { name: cpus()[0]?.model ?? 'unknown', threads: availableParallelism(), memoryBytes: totalmem() },
    addon: { loaded: cpu.devices.length > 0, abi: tensor.abiHash, candidates: addonCandidates() },
    devices,
    tools: { compiler: versionOf('c++') ?? versionOf('g++') ?? versionOf('clang++'), cmake: versionOf('cmake'), make: versionOf('make') ?? versionOf('ninja'), nvcc: nvccRelease() },
    gpus: versionOf('nvidia-smi', ['--query-gpu=name,memory.total,driver_version', '--format=csv,noheader']),
    hub: { cacheDir, offline, endpoint },
  };
  const [major, minor] = process.versions.node.split('.').map(Number);
  const problems = [
    ...(major > 20 || (major === 20 && minor >= 17) ? [] : [`Node.js ${process.version} is too old; install 20.17 or newer`]),
    ...(cpu.devices.length > 0 ? [] : [cpu.problem ?? 'the CPU addon reports no device']),
  ];
  return { ...found, problems };
}

type Report = ReturnType<typeof examine>;

function show({ q, node, system, cpu, addon, devices, tools, gpus, hub, problems }: Report): void {
  const missing = (value: string | undefined, fix: string) => value ?? `${pc.yellow('not found')} (${fix})`;
  printFields([
    ['q', q], ['node', node], ['system', system], ['cpu', `${cpu.name}, ${cpu.threads} threads, ${bytes(cpu.memoryBytes)}`], ['cpu addon', addon.loaded ? `loaded (${addon.abi})` : pc.red('not loaded')],
    ['compiler', missing(tools.compiler, 'needed only to build from source: apt-get install g++')], ['cmake', missing(tools.cmake, 'needed only to build from source: apt-get install cmake')],
    ['make', missing(tools.make, 'needed only to build from source: apt-get install make')], ['nvcc', missing(tools.nvcc, 'needed only to build CUDA kernels from source')],
    ['gpus', gpus ?? 'none: nvidia-smi is missing or finds no device'], ['hub cache', `${hub.cacheDir}${hub.offline ? ' (offline)' : ''}`],
  ]);
  for (const { type, devices: found, problem } of devices) {
    print();
    for (const device of found) {
      print(`${pc.bold(tensor.deviceName({ type: device.type, index: device.index }))}  ${device.name}, ${bytes(device.totalBytes)}`);
      printFields(Object.entries(device.features).map(([name, value]) => [`  ${name}`, String(value)] as const));
    }
    if (problem !== undefined) print(`${pc.bold(type)}  ${problem}`);
  }
  print();
  print(problems.length === 0 ? pc.green('No problems found.') : pc.red(problems.join('\n')));
}
