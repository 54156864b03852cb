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

/**
 * Whether a build for `builtFor` runs on a compute capability such as `8.9`: exactly (`90a`), the same or an older
 * minor of its major, or PTX of an older one.
 */
export function runsOn(builtFor: string, hasPtx: boolean, computeCapability: string): boolean {
  const [major, minor] = computeCapability.split('.').map(Number);
  const wanted = major * 10 + minor;
  const architectures = builtFor.split(',').map((entry) => ({ code: parseInt(entry, 10), exact: entry.endsWith('a') }));
  const isNative = architectures.some(({ code, exact }) =>
    exact ? code === wanted : Math.floor(code / 10) === major && code <= wanted,
  );
  return isNative || (hasPtx && wanted >= Math.max(...architectures.map(({ code }) => code)));
}

/** What is wrong and what to do about it. */
export interface Diagnosis {
  readonly problem: string;
  readonly fix: string;
}

function whyNone({ status, statusText, libraryProblem, driverVersion, runtimeVersion }: CudaProbe): Diagnosis {
  if (libraryProblem !== undefined) {
    return {
      problem: `no NVIDIA driver: libcuda.so.1 cannot be loaded (${libraryProblem})`,
      fix: 'install the NVIDIA driver (the CUDA toolkit alone has none), or give the container its GPUs, such as docker run --gpus all',
    };
  }
  if (status === 'cudaErrorInsufficientDriver') {
    return {
      problem: `the NVIDIA driver is too old: it supports CUDA ${driverVersion}, this build needs ${runtimeVersion}`,
      fix: `install a driver for CUDA ${runtimeVersion}, or build the kernels with an older toolkit`,
    };
  }
  if (status === 'cudaSuccess' || status === 'cudaErrorNoDevice') {
    return {
      problem: 'the NVIDIA driver finds no device (none fitted, or CUDA_VISIBLE_DEVICES hides them)',
      fix: 'see what nvidia-smi lists, and unset CUDA_VISIBLE_DEVICES',
    };
  }
  return {
    problem: `CUDA cannot start: ${statusText} (${status})`,
    fix: 'see what nvidia-smi says; after an update of the driver, restart the machine',
  };
}

/** The oldest GPUs that the kernels compile for. */
const oldestCapability = 7.5;

function whyNot({ name, index, features }: DriverInfo, { builtFor }: CudaProbe, buildCommand: string): Diagnosis {
  const capability = String(features.computeCapability);
  const architecture = capability === '9.0' ? '90a' : capability.replace('.', '');
  return {
    problem: `${name} (device ${index}) has compute capability ${capability}; this build has code for ${builtFor}`,
    fix:
      Number(capability) < oldestCapability
        ? `GPUs of compute capability ${oldestCapability} or newer are supported`
        : `build for it: ${buildCommand} --arch ${architecture}`,
  };
}

/** The devices that can be used, and why others, or all, cannot. @param buildCommand what compiles the addon */
export function explainProbe(
  probe: CudaProbe,
  buildCommand: string,
): { devices: DriverInfo[]; problem?: string; fix?: string } {
  if (probe.devices.length === 0) return { devices: [], ...whyNone(probe) };
  const devices: DriverInfo[] = [];
  const diagnoses: Diagnosis[] = [];
  for (const { index, info, problem } of probe.devices) {
    if (!info)
      diagnoses.push({
        problem: `device ${index} cannot be used: ${problem ?? 'unknown reason'}`,
        fix: 'see what nvidia-smi says about it',
      });
    else if (runsOn(probe.builtFor, probe.hasPtx, String(info.features.computeCapability))) devices.push(info);
    else diagnoses.push(whyNot(info, probe, buildCommand));
  }
  if (diagnoses.length === 0) return { devices };
  const joined = (list: string[]) => [...new Set(list)].join('; ');
  return {
    devices,
    problem: joined(diagnoses.map(({ problem }) => problem)),
    fix: joined(diagnoses.map(({ fix }) => fix)),
  };
}
