import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

// (func (export "sum") (param $bytes i32) (result i64): adds up memory [0, bytes) in steps of 64 bytes with four 16-byte accumulators.
// Sequential reads with so little arithmetic run at the speed of the memory; nothing is written.
const load = (offset: number, accumulator: number) => [0x20, accumulator, 0x20, 1, 0xfd, 0x00, 0x04, offset, 0xfd, 0xce, 0x01, 0x21, accumulator];
const body = [
  2, 1, 0x7f, 4, 0x7b, // locals: $p i32 (1), four v128 (2..5)
  0x03, 0x40, // loop
  ...load(0, 2), ...load(16, 3), ...load(32, 4), ...load(48, 5),
  0x20, 1, 0x41, 0xc0, 0x00, 0x6a, 0x22, 1, // $p += 64
  0x20, 0, 0x49, 0x0d, 0, 0x0b, // while ($p < $bytes)
  0x20, 2, 0x20, 3, 0xfd, 0xce, 0x01, 0x20, 4, 0xfd, 0xce, 0x01, 0x20, 5, 0xfd, 0xce, 0x01, 0xfd, 0x1d, 0, 0x0b,
];
const section = (id: number, content: readonly number[]) => [id, ...leb(content.length), ...content];
const leb = (value: number): number[] => (value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...leb(value >> 7)]);
const name = (text: string) => [text.length, ...Buffer.from(text)];

const wasm = Uint8Array.from([
  0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
  ...section(1, [1, 0x60, 1, 0x7f, 1, 0x7e]), // type: (i32) -> i64
  ...section(2, [1, ...name('q'), ...name('memory'), 2, 0, 1]), // import: memory of at least 1 page
  ...section(3, [1, 0]),
  ...section(7, [1, ...name('sum'), 0, 0]),
  ...section(10, [1, ...leb(body.length), ...body]),
]);

const workerSource = `
const { parentPort, workerData: { wasm, bytes } } = require('node:worker_threads');
const memory = new WebAssembly.Memory({ initial: bytes / 65536 });
new BigUint64Array(memory.buffer).fill(0x9e3779b97f4a7c15n);
WebAssembly.instantiate(wasm, { q: { memory } }).then(({ instance: { exports: { sum } } }) => {
  sum(bytes);
  parentPort.on('message', () => parentPort.postMessage(sum(bytes)));
  parentPort.postMessage('ready');
});`;

/** Bytes that each thread reads in a pass; together they are more than a cache holds. */
export const bytesPerThread = 2 ** 29;

/**
 * Bytes per second that `threads` threads read together from memory, the best of several passes (other programs only take away).
 * Each thread adds up 512 MiB of its own, 16 bytes at a time, in WebAssembly.
 */
export async function readBandwidth(threads: number, { passes = 6, bytes = bytesPerThread } = {}): Promise<number> {
  const workers = Array.from({ length: threads }, () => new Worker(workerSource, { eval: true, workerData: { wasm, bytes } }));
  try {
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    let best = 0;
    for (let pass = 0; pass < passes; pass++) {
      const answers = workers.map((worker) => once(worker, 'message'));
      const started = performance.now();
      for (const worker of workers) worker.postMessage('go');
      await Promise.all(answers);
      best = Math.max(best, (threads * bytes) / ((performance.now() - started) / 1000));
    }
    return best;
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}
