/** The oldest release that compiles all architectures of a release build. */
export const oldestNvcc: string;
/** The first nvcc that runs, of CUDACXX, CUDA_HOME or CUDA_PATH, the PATH and /usr/local/cuda; undefined when none does. */
export function findNvcc(
  environment?: Readonly<Record<string, string | undefined>>,
): { path: string; release: string } | undefined;
