// Cost of a command, attention speed, and what the event loop feels: `pnpm bench` in packages/kernels-cpu.
// Reports medians of 7 runs on random data; peak is not assumed, only GFLOP/s are given.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { commandCodes, encode, type CommandArgs, type CommandName, type TensorRef } from '@q/tensor';
import { cpuAddon } from './index.js';

const addon = cpuAddon();
const driver = addon.open(0, {});
const submit = <N extends CommandName>(name: N, args: CommandArgs<N>) =>
  driver.submit(commandCodes[name], encode(name, args));
const ref = (buffer: number, bytes: number, dtypeCode = 0): TensorRef => ({ buffer, offset: 0, dtypeCode, bytes });
const random = (count: number) => {
  const tensor = ref(driver.alloc(count * 4), count * 4);
  submit('random', { out: tensor, kind: 0, scale: 1, seed: 1 });
  return tensor;
};
const ints = (values: number[]) => {
  const tensor = ref(driver.alloc(values.length * 4), values.length * 4, 5);
  driver.write(tensor.buffer, 0, new Uint8Array(Int32Array.from(values).buffer));
  return tensor;
};
async function median(run: () => void, runs = 7): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < runs + 1; i++) {
    await driver.flush();
    const start = performance.now();
    run();
    await driver.flush();
    times.push(performance.now() - start);
  }
  return times.slice(1).sort((a, b) => a - b)[runs >> 1];
}

async function dispatch(): Promise<void> {
  const small = random(64);
  const wide = random(1 << 16);
  const add = (x: TensorRef) => submit('add', { a: x, b: x, out: x, count: x.bytes / 4 });
  const commands = 2000;
  const program = (x: TensorRef) => {
    driver.beginCapture();
    for (let i = 0; i < commands; i++) add(x);
    return driver.endCapture();
  };
  const [one, many] = [program(small), program(wide)];
  const start = performance.now();
  for (let i = 0; i < commands; i++) add(small);
  const submitted = performance.now() - start;
  const us = (ms: number) => `${((ms * 1000) / commands).toFixed(2)} us`;
  console.log(
    `submit on the JavaScript thread ${us(submitted)}; submit and run ${us(await median(() => Array.from({ length: commands }, () => add(small))))}`,
  );
  console.log(
    `replayed command of 64 elements ${us(await median(() => driver.replay(one)))}; of 65536 elements over ${driver.info.features.threads} threads ${us(await median(() => driver.replay(many)))}`,
  );
}

async function attention(headDim: number, queries: number, context: number, batch = 1, cacheDtype = 0): Promise<void> {
  const [numHeads, numKvHeads, blockSize] = [16, 4, 32];
  const maxBlocks = Math.ceil(context / blockSize);
  const cacheBytes = batch * maxBlocks * numKvHeads * blockSize * headDim * (cacheDtype === 0 ? 4 : 2);
  const tokens = batch * queries;
  const [qkv, keys, values, out] = [
    random(tokens * numHeads * headDim),
    ...[0, 1].map(() => {
      const cache = ref(driver.alloc(cacheBytes), cacheBytes, cacheDtype);
      submit('random', { out: cache, kind: 0, scale: 1, seed: 2 });
      return cache;
    }),
    random(tokens * numHeads * headDim),
  ];
  const range = (n: number, of: (i: number) => number) => ints(Array.from({ length: n }, (_, i) => of(i)));
  const args = {
    qkv,
    keyCache: keys,
    valueCache: values,
    out,
    sequenceStarts: range(batch + 1, (i) => i * queries),
    contextLengths: range(batch, () => context),
    blockTables: range(batch * maxBlocks, (i) => i),
    alibiSlopes: undefined,
    distanceBias: undefined,
    sinks: undefined,
    tokens,
    sequences: batch,
    maxQuery: queries,
    maxContext: context,
    numHeads,
    numKvHeads,
    headDim,
    valueDim: headDim,
    scale: headDim ** -0.5,
    softcap: 0,
    causal: 1,
    window: 0,
    distances: 0,
    biasOffset: 0,
    qOffset: 0,
    qGroupStride: (numHeads / numKvHeads) * headDim,
    rowStride: numHeads * headDim,
    blockSize,
    maxBlocks,
  };
  const ms = await median(() => submit('attention', args));
  const pairs = batch * queries * (context - (queries - 1) / 2);
  const gflops = (4 * pairs * numHeads * headDim) / ms / 1e6;
  const kind = queries > 1 ? 'prefill' : 'decode ';
  console.log(
    `${kind} headDim ${headDim}, ${batch} x ${queries} queries, ${context} keys: ${ms.toFixed(2)} ms, ${gflops.toFixed(1)} GFLOP/s, cache ${((2 * cacheBytes) / ms / 1e6).toFixed(1)} GB/s`,
  );
  for (const tensor of [qkv, keys, values, out, args.sequenceStarts, args.contextLengths, args.blockTables])
    driver.release(tensor.buffer);
}

async function eventLoop(): Promise<void> {
  const x = random(1 << 22);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const end = performance.now() + 3000;
  while (performance.now() < end) {
    for (let i = 0; i < 8; i++) submit('activation', { x, out: x, count: 1 << 22, kind: 2 });
    await driver.flush();
  }
  delay.disable();
  console.log(
    `event loop while busy: p50 ${(delay.percentile(50) / 1e6).toFixed(2)} ms, p99 ${(delay.percentile(99) / 1e6).toFixed(2)} ms, max ${(delay.max / 1e6).toFixed(2)} ms`,
  );
}

console.log(driver.info.name, driver.info.features);
await dispatch();
for (const headDim of [64, 128]) for (const length of [512, 1024, 2048]) await attention(headDim, length, length);
for (const headDim of [64, 128])
  for (const [batch, context] of [
    [1, 4096],
    [8, 1024],
  ])
    await attention(headDim, 1, context, batch);
await attention(128, 1, 4096, 1, 2);
await eventLoop();
await driver.close();
