import { measureCpuCeilings, tensor, type Backend, type FloatDType, type Tensor } from '@q/transformers';

/** What a device can do at most, measured now. */
export interface Peaks {
  /** Bytes read per second. */
  readonly readBytesPerSecond: number;
  /**
   * Operations per second by arithmetic: on a CPU in registers (`f32`, `vnni`, `amx`), on a GPU of a large dense
   * product in the activation dtype.
   */
  readonly opsPerSecond: Readonly<Record<string, number>>;
  /** How they were measured. */
  readonly method: string;
}

/**
 * Measures bandwidth and arithmetic. @param threads threads of the CPU device; @param dtype activation dtype of the GPU
 */
export async function measurePeaks(backend: Backend, threads: number, dtype: FloatDType): Promise<Peaks> {
  if (backend.device.type === 'cuda') {
    return {
      readBytesPerSecond: await copyBandwidth(backend),
      opsPerSecond: { [dtype]: await denseFlops(backend, dtype) },
      method: 'copies of 1 GiB, bytes read and written, best of 5; a dense product of 4096 x 8192 x 8192, best of 4',
    };
  }
  const {
    readBytesPerSecond,
    f32FlopsPerSecond: f32,
    vnniOpsPerSecond: vnni,
    amxOpsPerSecond: amx,
  } = await measureCpuCeilings(threads);
  return {
    readBytesPerSecond,
    opsPerSecond: { f32, ...(vnni > 0 && { vnni }), ...(amx > 0 && { amx }) },
    method: `${threads} threads reading 1 GiB, best of 6 passes; multiply-adds in registers, best of 3`,
  };
}

/** The better of two measurements, figure by figure: other programs only take away. */
export const higherOf = (a: Peaks, b: Peaks): Peaks => ({
  method: a.method,
  readBytesPerSecond: Math.max(a.readBytesPerSecond, b.readBytesPerSecond),
  opsPerSecond: Object.fromEntries(
    Object.keys(a.opsPerSecond).map((name) => [name, Math.max(a.opsPerSecond[name], b.opsPerSecond[name])]),
  ),
});

const [rows, width] = [4096, 8192];

/** y[rows, width] = x[rows, width] · W[width, width], the best of 4. */
async function denseFlops(backend: Backend, dtype: FloatDType): Promise<number> {
  const x = random(backend, [rows, width], dtype);
  const values = random(backend, [width, width], dtype);
  const once = () => tensor.linear(x, [{ weight: tensor.denseWeight(values) }]).dispose();
  const ms = await bestMs(backend, once, 4);
  x.dispose();
  values.dispose();
  return (2 * rows * width * width) / (ms / 1000);
}

async function copyBandwidth(backend: Backend): Promise<number> {
  const [from, to] = [random(backend, [2 ** 28], 'f32'), random(backend, [2 ** 28], 'f32')];
  const ms = await bestMs(backend, () => tensor.copy(from, to), 5);
  from.dispose();
  to.dispose();
  return (2 * 2 ** 30) / (ms / 1000);
}

function random(backend: Backend, shape: readonly number[], dtype: FloatDType): Tensor {
  const out = backend.allocate(shape, dtype);
  tensor.fillRandom(out, { kind: 'normal', seed: 1 });
  return out;
}

async function bestMs(backend: Backend, run: () => void, times: number): Promise<number> {
  run();
  await backend.flush();
  let best = Infinity;
  for (let i = 0; i < times; i++) {
    const started = performance.now();
    run();
    await backend.flush();
    best = Math.min(best, performance.now() - started);
  }
  return best;
}
