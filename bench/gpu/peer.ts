// Copies between devices: the cases of @q/tensor/conformance, equality of large copies, and speed.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { listDevices, openDevice } from '@q/transformers';
import { fillRandom, type Backend, type Tensor } from '@q/tensor';
import { runTransfers } from '@q/tensor/conformance';

/**
 * Devices to copy between: each pair of GPUs in both directions, where there is one GPU two queues of it; and the CPU
 * with the first.
 */
function pairs(device: string): [string, string][] {
  if (device === 'cpu') return [['cpu', 'cpu']];
  const gpus = listDevices()
    .find(({ type }) => type === 'cuda')!
    .devices.map(({ index }) => `cuda:${index}`);
  const between = gpus.flatMap((from) => gpus.filter((to) => to !== from).map((to): [string, string] => [from, to]));
  return [...(between.length > 0 ? between : [[device, device] as [string, string]]), ['cpu', device], [device, 'cpu']];
}

const different = async (a: Tensor, b: Tensor): Promise<number> => {
  const [x, y] = await Promise.all([a.toBytes(), b.toBytes()]);
  return Buffer.compare(x, y) === 0 ? 0 : x.reduce((sum, byte, i) => sum + Number(byte !== y[i]), 0);
};

/** Bytes that differ after large copies, the source disposed behind the last one, and bytes per second. */
async function large(
  from: Backend,
  to: Backend,
): Promise<{ different: number; gigabytesPerSecond: number; eventLoopMs: number }> {
  const bytes = from.name === 'cpu' || to.name === 'cpu' ? 64 << 20 : 512 << 20;
  const source = from.allocate([bytes], 'u8');
  fillRandom(source, { kind: 'bits', seed: 5 });
  const target = to.allocate([bytes], 'u8');
  to.receive(source, target); // opens the memory of one to the other
  await Promise.all([from.flush(), to.flush()]);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  await new Promise((resolve) => setTimeout(resolve, 20));
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    to.receive(source, target);
    await to.flush();
    times.push((performance.now() - started) / 1000);
  }
  await new Promise((resolve) => setTimeout(resolve, 20));
  delay.disable();
  const wrong = await different(source, target);
  const last = source.to(to);
  source.dispose();
  const reused = from.allocate([bytes], 'u8');
  fillRandom(reused, { kind: 'bits', seed: 6 });
  const wrongLast = await different(target, last);
  for (const tensor of [target, last, reused]) tensor.dispose();
  return {
    different: wrong + wrongLast,
    gigabytesPerSecond: bytes / times.sort((a, b) => a - b)[2] / 1e9,
    eventLoopMs: delay.max / 1e6,
  };
}

/** Microseconds a hop of one row of 4,096 halves, there and back. */
async function small(from: Backend, to: Backend): Promise<number> {
  const hops = 200;
  const run = async () => {
    let row = from.tensor(new Float32Array(4096), [1, 4096], 'f32');
    const started = performance.now();
    for (let i = 0; i < hops; i++) {
      const next = row.to(i % 2 === 0 ? to : from);
      row.dispose();
      row = next;
    }
    await row.backend.flush();
    row.dispose();
    return ((performance.now() - started) * 1000) / hops;
  };
  const times = [await run(), await run(), await run(), await run()].slice(1);
  return times.sort((a, b) => a - b)[1];
}

export async function peer(device: string): Promise<unknown> {
  const results: Record<string, unknown> = {};
  let [failed, wrong] = [0, 0];
  for (const [a, b] of pairs(device)) {
    const open = (name: string) => () => openDevice(name, name === 'cpu' ? { threads: 4 } : {});
    const cases = await runTransfers({ from: open(a), to: open(b) });
    const [from, to] = [open(a)(), open(b)()];
    const copies = await large(from, to);
    results[`${a} to ${b}`] = {
      passed: cases.passed,
      failures: cases.failures,
      ...copies,
      hopMicroseconds: await small(from, to),
    };
    await Promise.all([from.close(), to.close()]);
    failed += cases.failures.length;
    wrong += copies.different;
  }
  return { failed, different: wrong, ...results };
}
