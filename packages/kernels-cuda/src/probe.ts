import type { Driver, DriverInfo } from '@q/tensor';

/** What the CUDA runtime and driver answer, as the addon passes it on. */
export interface CudaProbe {
  /** Name of the answer when asked for devices: `cudaSuccess`, `cudaErrorNoDevice`... */
  readonly status: string;
  /** The runtime's own words for it. */
  readonly statusText: string;
  /** Why the driver's library, libcuda.so.1, cannot be loaded; absent when it can. */
  readonly libraryProblem?: string;
  /** The newest CUDA that the driver supports, such as `13.0`; `0.0` without a driver. */
  readonly driverVersion: string;
  /** The CUDA that the addon was built with. */
  readonly runtimeVersion: string;
  /** Architectures with machine code, such as `80,90a`. */
  readonly builtFor: string;
  /** Whether there is PTX of the newest of them, for GPUs to come. */
  readonly hasPtx: boolean;
  /** In CUDA's order; `problem` instead of `info` where the runtime cannot describe a device. */
  readonly devices: readonly { readonly index: number; readonly info?: DriverInfo; readonly problem?: string }[];
}

/** What the addon exports. */
export interface NativeCuda {
  readonly abi: string;
  probe(): CudaProbe;
  open(index: number): Driver;
}

/** Whether a build for `builtFor` runs on a compute capability such as `8.9`: exactly (`90a`), the same or an older minor of its major, or PTX of an older one. */
export function runsOn(builtFor: string, hasPtx: boolean, computeCapability: string): boolean {
  const [major, minor] = computeCapability.split('.').map(Number);
  const wanted = major * 10 + minor;
  const architectures = builtFor.split(',').map((entry) => ({ code: parseInt(entry, 10), exact: entry.endsWith('a') }));
  const isNative = architectures.some(({ code, exact }) => (exact ? code === wanted : Math.floor(code / 10) === major && code <= wanted));
  return isNative || (hasPtx && wanted >= Math.max(...architectures.map(({ code }) => code)));
}

function whyNone({ status, statusText, libraryProblem, driverVersion, runtimeVersion }: CudaProbe): string {
  if (libraryProblem !== undefined) return `no NVIDIA driver: libcuda.so.1 cannot be loaded (${libraryProblem})`;
  if (status === 'cudaErrorInsufficientDriver') return `the NVIDIA driver is too old: it supports CUDA ${driverVersion}, this build needs ${runtimeVersion}`;
  if (status === 'cudaSuccess' || status === 'cudaErrorNoDevice') return 'the NVIDIA driver finds no device (none fitted, or CUDA_VISIBLE_DEVICES hides them)';
  return `CUDA cannot start: ${statusText} (${status})`;
}

/** The devices that can be used, and why others, or all, cannot. */
export function explainProbe(probe: CudaProbe): { devices: DriverInfo[]; problem?: string } {
  if (probe.devices.length === 0) return { devices: [], problem: whyNone(probe) };
  const devices: DriverInfo[] = [];
  const problems: string[] = [];
  for (const { index, info, problem } of probe.devices) {
    const capability = String(info?.features.computeCapability);
    if (!info) problems.push(`device ${index} cannot be used: ${problem ?? 'unknown reason'}`);
    else if (runsOn(probe.builtFor, probe.hasPtx, capability)) devices.push(info);
    else problems.push(`${info.name} (device ${index}) has compute capability ${capability}; this build has code for ${probe.builtFor}`);
  }
  return { devices, ...(problems.length > 0 && { problem: problems.join('; ') }) };
}
