// The driver on a real device. Run by `node driver.gpu.cjs [path of q_cuda.node]` where there is one
// (scripts/bundle-gpu-tests.mjs makes that file); it prints one line a check and exits with 1 if any failed.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { Worker } from 'node:worker_threads';
import {
  commandCodes,
  encode,
  type CommandArgs,
  type CommandName,
  type Driver,
  type DriverFailure,
  type TensorRef,
} from '@q/tensor';
import { fuzzNative, numbers } from '@q/tensor/conformance';
import { loadCuda } from '../src/index.js';

let failed = 0;
const check = (ok: boolean, what: string, detail: unknown = '') => {
  if (!ok) failed++;
  console.log(`${ok ? 'ok    ' : 'FAILED'} ${what}`, detail);
};

const f32 = 0;
const i32 = 5;
const tensor = (buffer: number, bytes: number, dtypeCode = f32, offset = 0): TensorRef => ({
  buffer,
  offset,
  dtypeCode,
  bytes,
});
const submit = <N extends CommandName>(driver: Driver, name: N, args: CommandArgs<N>) =>
  driver.submit(commandCodes[name], encode(name, args));
const bytesOf = (values: Float32Array | Int32Array) =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
const floats = async (driver: Driver, buffer: number, count: number, offset = 0) =>
  new Float32Array(await driver.read(buffer, offset, count * 4));
const failure = async (promise: Promise<unknown>): Promise<DriverFailure | undefined> =>
  promise.then(
    () => undefined,
    (error: DriverFailure) => error,
  );
const thrown = (run: () => unknown): DriverFailure | undefined => {
  try {
    run();
  } catch (error) {
    return error as DriverFailure;
  }
};

async function data(driver: Driver) {
  const small = driver.alloc(4096);
  driver.write(small, 0, bytesOf(Float32Array.from({ length: 1024 }, (_, i) => i)));
  submit(driver, 'scale', { x: tensor(small, 4096), out: tensor(small, 4096), count: 1024, factor: 2, softcap: 0 });
  check(
    (await floats(driver, small, 1024)).every((v, i) => v === 2 * i),
    'write, command, read',
  );
  const several = await Promise.all([0, 400, 800].map((offset) => floats(driver, small, 10, offset)));
  check(
    several.every((v, k) => v.every((x, i) => x === 2 * (i + 100 * k))),
    'several reads in flight',
  );

  const count = 20_000_000;
  const large = driver.alloc(4 * count);
  const source = Float32Array.from({ length: count }, (_, i) => i % 1000);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const start = performance.now();
  driver.write(large, 0, bytesOf(source));
  submit(driver, 'scale', { x: tensor(large, 4 * count), out: tensor(large, 4 * count), count, factor: 3, softcap: 0 });
  driver.write(small, 0, bytesOf(Float32Array.of(7)));
  const queued = performance.now() - start;
  await driver.flush();
  const flushed = performance.now() - start;
  const back = await floats(driver, large, count);
  check(
    back.every((v, i) => v === 3 * (i % 1000)),
    'an 80 MB write and read, in order with commands',
    { queued, flushed, total: performance.now() - start },
  );
  check((await floats(driver, small, 1))[0] === 7, 'a small write behind a large one');
  await files(driver, large, source);
  await new Promise((done) => setTimeout(done, 20));
  delay.disable();
  console.log(
    'event loop delay ms, 99 % and most (host-side array checks included):',
    delay.percentile(99) / 1e6,
    delay.max / 1e6,
  );
  driver.release(large);
  driver.release(small);
}

async function files(driver: Driver, large: number, source: Float32Array) {
  const count = source.length;
  const dir = mkdtempSync(join(tmpdir(), 'q-'));
  const path = join(dir, 'data');
  writeFileSync(path, bytesOf(source));
  const file = driver.openFile(path);
  const readStart = performance.now();
  driver.readFile(file, 4000, large, 0, 4 * (count - 1000));
  driver.readFile(file, 4000, large, 0, 4 * (count - 1000));
  await driver.flush();
  const seconds = (performance.now() - readStart) / 1000;
  check(
    (await floats(driver, large, 2000)).every((v, i) => v === i % 1000),
    'readFile',
    { gigabytesPerSecond: (8 * count) / seconds / 1e9 },
  );
  driver.readFile(file, 4 * count - 100, large, 0, 200);
  check((await failure(driver.flush()))?.code === 'file', 'a read past the end of a file fails');
  driver.closeFile(file);
  rmSync(dir, { recursive: true });
  check(thrown(() => driver.openFile('/nowhere'))?.code === 'file', 'a file that is not there');
}

async function errors(driver: Driver) {
  const table = driver.alloc(4 * 40);
  const ids = driver.alloc(8);
  const out = driver.alloc(4 * 8);
  driver.write(ids, 0, bytesOf(Int32Array.of(3, 10)));
  submit(driver, 'embedding', {
    table: tensor(table, 160),
    ids: tensor(ids, 8, i32),
    out: tensor(out, 32),
    rows: 2,
    width: 4,
    vocab: 10,
    scale: 1,
  });
  const bad = await failure(driver.flush());
  check(bad?.code === 'command' && bad.command === 'embedding', 'a bad id rejects the next promise', bad?.message);
  check((await failure(driver.flush())) === undefined, 'and the queue goes on');
  submit(driver, 'add', { a: tensor(table, 160), b: tensor(ids, 8, i32), out: tensor(out, 32), count: 2 });
  const wrong = await failure(driver.read(out, 0, 8));
  check(
    wrong?.code === 'command' && wrong.command === 'add',
    'a command that cannot take its arguments',
    wrong?.message,
  );
  submit(driver, 'fill', { out: tensor(out, 1000), value: 1 });
  check((await failure(driver.flush()))?.command === 'fill', 'a tensor outside its buffer');
  const full = thrown(() => driver.alloc(1e14));
  check(
    full?.code === 'out_of_memory' && full.wantedBytes === 1e14 && (full.freeBytes ?? 0) > 0,
    'out of memory',
    full?.message,
  );
  for (const buffer of [table, ids, out]) driver.release(buffer);
  check(thrown(() => driver.release(out))?.code === 'command', 'a double release');
}

async function programs(driver: Driver) {
  const x = driver.alloc(4096);
  submit(driver, 'fill', { out: tensor(x, 4096), value: 1 });
  driver.beginCapture();
  for (let i = 0; i < 3; i++)
    submit(driver, 'scale', { x: tensor(x, 4096), out: tensor(x, 4096), count: 1024, factor: 2, softcap: 0 });
  submit(driver, 'softmax', { x: tensor(x, 4096), out: tensor(x, 4096), rows: 1, width: 1024 });
  const program = driver.endCapture();
  check((await floats(driver, x, 1))[0] === 1, 'a capture runs nothing');
  driver.replay(program);
  check(
    (await floats(driver, x, 1024)).every((v) => v === 1 / 1024),
    'a replay runs the program',
  );
  driver.release(x);
  driver.replay(program);
  check((await failure(driver.flush())) === undefined, 'a program keeps the buffers it uses');
  driver.beginCapture();
  submit(driver, 'fill', { out: tensor(x, 4096), value: 1 });
  check(thrown(() => driver.endCapture())?.command === 'fill', 'a capture with a failing command');
  check(driver.memory().allocatedBytes === 0, 'which leaves nothing allocated', driver.memory());
  const [z, inner] = [driver.alloc(4096), driver.alloc(4096)];
  driver.beginCapture();
  submit(driver, 'fill', { out: tensor(inner, 4096), value: 3 });
  submit(driver, 'scale', { x: tensor(inner, 4096), out: tensor(z, 4096), count: 1024, factor: 2, softcap: 0 });
  driver.release(inner);
  const holding = driver.endCapture();
  const taken = Array.from({ length: 8 }, () => driver.alloc(4096));
  for (const buffer of taken) submit(driver, 'fill', { out: tensor(buffer, 4096), value: 0 });
  driver.replay(holding);
  check(
    (await floats(driver, z, 1024)).every((v) => v === 6),
    'a buffer released while it is recorded stays with the program',
  );
  check(
    (await Promise.all(taken.map((buffer) => floats(driver, buffer, 1024)))).every((values) =>
      values.every((v) => v === 0),
    ),
    "and is nobody else's",
  );
  driver.releaseProgram(holding);
  for (const buffer of [z, ...taken]) driver.release(buffer);
  const times: number[] = [];
  const y = driver.alloc(64);
  for (let i = 0; i < 200; i++) {
    const start = performance.now();
    driver.replay(program);
    await driver.read(y, 0, 4);
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  console.log('replay of 4 kernels and a read, us, median and 95 %:', times[100] * 1000, times[190] * 1000);
  driver.releaseProgram(program);
  driver.release(y);
  await driver.flush();
}

/** Groups that are called off while a large write keeps them waiting; arguments that reach nowhere; hostile calls. */
async function endings(driver: Driver) {
  const count = 20_000_000;
  const [x, y] = [driver.alloc(4 * count), driver.alloc(4096)];
  submit(driver, 'fill', { out: tensor(y, 4096), value: 1 });
  driver.write(x, 0, bytesOf(new Float32Array(count)));
  driver.group(1);
  submit(driver, 'fill', { out: tensor(y, 4096), value: 2 });
  driver.group(0);
  driver.cancel(1);
  check((await floats(driver, y, 1))[0] === 1, 'a command that was called off behind a write is skipped');
  driver.group(1);
  submit(driver, 'fill', { out: tensor(y, 4096), value: 3 });
  driver.group(0);
  check((await floats(driver, y, 1))[0] === 3, 'a later one of the same group runs');
  for (const [what, run] of Object.entries({
    'half an offset': () => driver.write(y, 0.5, new Uint8Array(4)),
    'a negative size': () => driver.alloc(-1),
    'words that are no float64': () => driver.submit(0, new Uint8Array(8) as unknown as Float64Array),
  }))
    check(thrown(run)?.code === 'command', what);
  for (const buffer of [x, y]) driver.release(buffer);
  let ran = 0;
  for (let seed = 0; seed < 2000; seed++)
    if ((await fuzzNative(driver, numbers(seed).uniform, 'zero')) === undefined) ran++;
  check(driver.memory().allocatedBytes === 0, '2000 calls with hostile arguments', { ran });
}

/** Terminates threads with promises under way. */
async function threads(path: string) {
  const source = `
    const driver = require(${JSON.stringify(path)}).open(0);
    const x = driver.alloc(1 << 20);
    const round = () => { driver.submit(0, Float64Array.from([x, 0, 0, 1 << 20, 1])); return Promise.all([driver.flush(), driver.read(x, 0, 1 << 20)]); };
    (async () => { for (;;) await round(); })();
    require('node:worker_threads').parentPort.postMessage('busy');`;
  for (let i = 0; i < 10; i++) {
    const worker = new Worker(source, { eval: true });
    await new Promise((resolve) => worker.once('message', resolve));
    await worker.terminate();
  }
  check(true, '10 busy threads were terminated');
}

async function leaks(driver: Driver) {
  await driver.flush();
  const before = driver.memory();
  for (let i = 0; i < 1000; i++) {
    const x = driver.alloc(1_000_000 + 4096 * (i % 7));
    const y = driver.alloc(4096);
    driver.beginCapture();
    submit(driver, 'fill', { out: tensor(x, 4096), value: i });
    submit(driver, 'copy', { src: tensor(x, 4096), out: tensor(y, 4096) });
    const program = driver.endCapture();
    driver.replay(program);
    driver.release(x);
    driver.release(y);
    driver.releaseProgram(program);
    if (i % 50 === 0) await driver.flush();
  }
  await driver.flush();
  const after = driver.memory();
  check(after.allocatedBytes === before.allocatedBytes, '1000 programs leave nothing allocated', { before, after });
  check(before.freeBytes - after.freeBytes < 16 << 20, 'nor used on the device', before.freeBytes - after.freeBytes);
}

const addon = loadCuda(process.argv[2]);
const { devices, problem } = addon.devices();
console.log(JSON.stringify(devices), problem ?? '');
if (devices.length === 0) process.exit(1);
const openStart = performance.now();
const driver = addon.open(0, {});
console.log('open ms', performance.now() - openStart);
const empty = driver.memory();
await data(driver);
await errors(driver);
await programs(driver);
await leaks(driver);
await endings(driver);
if (process.argv[2]) await threads(process.argv[2]);
check(driver.memory().allocatedBytes === 0, 'everything given back', { empty, now: driver.memory() });
await driver.close();
check(thrown(() => driver.alloc(1))?.code === 'closed', 'a closed driver');
const second = addon.open(0, {});
second.alloc(1 << 20);
console.log(failed === 0 ? 'driver: all checks passed' : `driver: ${failed} checks failed`);
process.exitCode = failed === 0 ? 0 : 1;
