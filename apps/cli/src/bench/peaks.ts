import { tensor, type Backend, type FloatDType, type Tensor } from '@q/transformers';
import { readBandwidth } from './read-bandwidth.js';

/** What a device can do at most, measured now. */
export interface Peaks {
  /** Bytes read per second. */
  readonly readBytesPerSecond: number;
  /** How it was measured. */
  readonly readMethod: string;
  /** Floating point operations per second of a large dense product in the activation dtype, by dtype of the weight. */
  readonly flops: Readonly<Record<string, number>>;
}

/** Measures bandwidth and the speed of large dense products. @param threads threads of the CPU device */
export async function measurePeaks(backend: Backend, threads: number): Promise<Peaks> {
  const flops: Record<string, number> = {};
  const dtypes: FloatDType[] = backend.device.type === 'cpu' ? ['f32', 'bf16'] : [backend.caps.activationDtypes[0]];
  for (const dtype of dtypes) flops[dtype] = await denseFlops(backend, dtype);
  if (backend.device.type === 'cpu') {
    return { flops, readBytesPerSecond: await readBandwidth(threads), readMethod: `${threads} threads adding up 512 MiB each in 16-byte steps, best of 6 passes` };
  }
  return { flops, readBytesPerSecond: await copyBandwidth(backend), readMethod: 'copies of 1 GiB, bytes read and written, best of 5' };
}

/** The better of two measurements, figure by figure: other programs only take away. */
export const higherOf = (a: Peaks, b: Peaks): Peaks => ({
  readMethod: a.readMethod,
  readBytesPerSecond: Math.max(a.readBytesPerSecond, b.readBytesPerSecond),
  flops: Object.fromEntries(Object.keys(a.flops).map((dtype) => [dtype, Math.max(a.flops[dtype], b.flops[dtype])])),
});

const [rows, width] = [512, 4096];

/** y[512, 4096] = x[512, 4096] · W[4096, 4096], the best of 4. */
async function denseFlops(backend: Backend, dtype: FloatDType): Promise<number> {
  const x = random(backend, [rows, width], backend.caps.activationDtypes[0]);
  const values = random(backend, [width, width], dtype);
  const once = () => tensor.linear(x, [{ weight: { kind: 'dense', shape: [width, width], values } }]).dispose();
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
