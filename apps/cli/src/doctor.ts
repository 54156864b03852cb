import type { DeviceReport } from '@q/transformers';

/** What {@link diagnose} judges: gathered by the command, made up by its tests. */
export interface Facts {
  /** `process.version`. */
  readonly node: string;
  /** The devices of each kind, as `listDevices` gives them. */
  readonly devices: readonly DeviceReport[];
  /** One line a GPU that nvidia-smi lists; undefined when it cannot be run. */
  readonly nvidiaSmi?: readonly string[];
  /** `CUDA_VISIBLE_DEVICES`, where it is set. */
  readonly visibleDevices?: string;
  /** The nvcc that a build would take. */
  readonly nvcc?: { readonly path: string; readonly release: string; readonly oldest: string };
}

export interface Verdict {
  /** What keeps Q from running at all. */
  readonly problems: readonly string[];
  /** What keeps it from running as well as it could. */
  readonly warnings: readonly string[];
  /** One line about the GPUs: which are ready, or why there is none. */
  readonly cuda: string;
  /** Why no GPU is used, and what to do. */
  readonly noGpu?: string;
  /** One line about the CUDA compiler. */
  readonly nvcc: string;
}

const plural = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`;

function isOlder(release: string, oldest: string): boolean {
  const [[major, minor], [wantedMajor, wantedMinor]] = [release, oldest].map((version) =>
    version.split('.').map(Number),
  );
  return major < wantedMajor || (major === wantedMajor && minor < wantedMinor);
}

function gpuWarnings(gpus: DeviceReport, { nvidiaSmi, visibleDevices }: Facts): string[] {
  const [used, present] = [gpus.devices.length, nvidiaSmi?.length ?? 0];
  const why = [gpus.problem, gpus.fix].filter(Boolean).join('; ');
  if (used === 0)
    return present === 0 ? [] : [`${plural(present, 'GPU')} listed by nvidia-smi, and none is used: ${why}`];
  if (gpus.problem) return [`not every GPU is used: ${why}`];
  if (present > used)
    return [
      `${plural(present, 'GPU')} listed by nvidia-smi, and CUDA sees ${used}${visibleDevices === undefined ? '' : ` (CUDA_VISIBLE_DEVICES is "${visibleDevices}")`}`,
    ];
  const alone = used > 1 ? gpus.devices.filter(({ features }) => features.peerAccess === 'none') : [];
  return alone.length === 0
    ? []
    : [
        `${alone.map(({ index }) => `cuda:${index}`).join(', ')} cannot reach other GPUs directly: copies between them go through host memory`,
      ];
}

/** What the facts mean for who wants to run Q. */
export function diagnose(facts: Facts): Verdict {
  const kind = (wanted: 'cpu' | 'cuda') =>
    facts.devices.find(({ type }) => type === wanted) ?? {
      type: wanted,
      devices: [],
      problem: `no report about ${wanted}`,
    };
  const [cpu, gpus] = [kind('cpu'), kind('cuda')];
  const [major, minor] = facts.node.slice(1).split('.').map(Number);
  const problems = [
    ...(major > 20 || (major === 20 && minor >= 17)
      ? []
      : [`Node.js ${facts.node} is too old; install 20.17 or newer`]),
    ...(cpu.devices.length > 0 ? [] : [cpu.problem ?? 'the CPU addon reports no device']),
  ];
  const noGpu = gpus.devices.length === 0 ? [gpus.problem, gpus.fix].filter(Boolean).join('; ') : undefined;
  const { nvcc } = facts;
  const isOld = nvcc !== undefined && isOlder(nvcc.release, nvcc.oldest);
  return {
    problems,
    warnings: gpuWarnings(gpus, facts),
    cuda:
      noGpu ??
      `${plural(gpus.devices.length, 'GPU')} ready: ${gpus.devices.map(({ index, name }) => `cuda:${index} (${name})`).join(', ')}`,
    ...(noGpu !== undefined && { noGpu }),
    nvcc: nvcc
      ? `release ${nvcc.release} (${nvcc.path})${isOld ? `, too old: the kernels need ${nvcc.oldest} or newer` : ''}`
      : 'not found (only a build of the CUDA kernels needs it)',
  };
}
