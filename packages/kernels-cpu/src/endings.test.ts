// What ends in the middle of work: threads, processes, commands that are called off, devices that are closed.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { DisposedError } from '@q/config';
import { add, Backend, fill, linear, type Tensor } from '@q/tensor';
import { describe, expect, it } from 'vitest';
import { addonCandidates, cpuAddon } from './index.js';

/** Runs a CommonJS program in a process of its own; `open` in it gives a driver. */
function run(
  program: string,
  command: readonly string[] = [],
): { status: number | null; signal: string | null; stdout: string; stderr: string } {
  const script = join(mkdtempSync(join(tmpdir(), 'q-cpu-')), 'ends.cjs');
  writeFileSync(script, `const open = (threads = 2) => require(process.env.ADDON).open(0, { threads });\n${program}`);
  const { status, signal, stdout, stderr } = spawnSync(
    command[0] ?? process.execPath,
    [...command.slice(1), ...(command.length > 0 ? [process.execPath] : []), script],
    {
      encoding: 'utf8',
      env: { ...process.env, ADDON: addonCandidates()[1] },
      timeout: 120_000,
    },
  );
  rmSync(dirname(script), { recursive: true });
  return { status, signal, stdout, stderr };
}

/** A thread that always has commands, reads, writes and flushes under way. */
const busy = `
  const driver = open();
  const bytes = 1 << 20;
  const x = driver.alloc(bytes);
  const round = () => {
    driver.submit(0, Float64Array.from([x, 0, 0, bytes, 1]));
    driver.write(x, 0, new Uint8Array(bytes / 2));
    return Promise.all([driver.flush(), driver.read(x, 0, bytes), driver.read(x, 0, 8).then(() => driver.flush())]);
  };
  (async () => { for (;;) await round(); })();
  (async () => { for (;;) await driver.read(x, 0, 2 ** 40).catch(() => driver.flush()); })();
  setInterval(() => driver.submit(5, new Float64Array(2)), 1).unref();
  process.on('uncaughtException', () => undefined);`;

describe('threads and processes', () => {
  it('a thread with promises under way may be terminated, again and again', { timeout: 150_000 }, () => {
    const result = run(`
      const { Worker, isMainThread, parentPort } = require('node:worker_threads');
      if (isMainThread) {
        (async () => {
          for (let i = 0; i < 24; i++) {
            const worker = new Worker(__filename);
            await new Promise((resolve) => worker.once('message', resolve));
            await new Promise((resolve) => setTimeout(resolve, (i % 6) * 3));
            await worker.terminate();
          }
          console.log('survived');
        })();
      } else {
        ${busy}
        parentPort.postMessage('busy');
      }`);
    expect(result).toEqual({ status: 0, signal: null, stdout: 'survived\n', stderr: '' });
  });

  it('a process may exit with busy threads', { timeout: 60_000 }, () => {
    const result = run(`
      const { Worker, isMainThread, parentPort } = require('node:worker_threads');
      let started = 0;
      const onMessage = () => { if (++started === 3) setTimeout(() => process.exit(7), 20); };
      if (isMainThread) for (let i = 0; i < 3; i++) new Worker(__filename).once('message', onMessage);
      else {
        ${busy}
        parentPort.postMessage('busy');
      }`);
    expect(result).toEqual({ status: 7, signal: null, stdout: '', stderr: '' });
  });
});

// A limit of threads binds everybody but root, who can become somebody without threads.
const canLimit = process.platform === 'linux' && process.getuid?.() === 0;

describe.runIf(canLimit)('a system that starts no more threads (Linux, as root)', () => {
  it('gives a typed failure or fewer threads, and what runs goes on', { timeout: 60_000 }, () => {
    const program = `
      process.setuid(54321);
      const drivers = [];
      let failure;
      while (!failure && drivers.length < 100)
        try { drivers.push(open(4)); } catch (error) { failure = error; }
      const bytes = 1024;
      (async () => {
        for (const driver of drivers) {
          const x = driver.alloc(bytes);
          driver.write(x, 0, new Uint8Array(bytes).fill(3));
          if (new Uint8Array(await driver.read(x, 0, bytes)).some((byte) => byte !== 3)) throw new Error('wrong bytes');
          await driver.close();
        }
        console.log(drivers.length > 0, failure.code);
      })();`;
    expect(run(program, ['prlimit', '--nproc=40'])).toEqual({
      status: 0,
      signal: null,
      stdout: 'true out_of_memory\n',
      stderr: '',
    });
  });
});

const random = (count: number) => Float32Array.from({ length: count }, (_, i) => ((i * 7919) % 1009) / 1009 - 0.5);

describe('commands that are called off', () => {
  it('ends a long queue, and the command that runs, soon', { timeout: 60_000 }, async () => {
    const backend = new Backend(cpuAddon().open(0, { threads: 2 }));
    const [rows, k] = [256, 2048];
    const x = backend.tensor(random(rows * k), [rows, k], 'f32');
    const weight = {
      kind: 'dense' as const,
      shape: [k, k] as const,
      values: backend.tensor(random(k * k), [k, k], 'f32'),
    };
    const pass = () => {
      for (let i = 0; i < 40; i++) linear(x, [{ weight }]).dispose();
    };
    const timed = async (wait: () => Promise<void>) => {
      const started = performance.now();
      await wait();
      return performance.now() - started;
    };
    backend.scope(pass);
    const whole = await timed(async () => {
      backend.scope(pass);
      await backend.flush();
    });
    const stop = new AbortController();
    backend.cancellable(stop.signal, () => backend.scope(pass));
    await new Promise((resolve) => setTimeout(resolve, whole / 20));
    const late = await timed(async () => {
      stop.abort();
      await backend.flush();
    });
    // A fortieth of the whole is one command; on a busy machine everything is slower alike.
    expect(late).toBeLessThan(Math.max(whole / 8, 50));
    const y = backend.empty([4], 'f32');
    fill(y, 3);
    expect([...(await add(y, y).data())]).toEqual([6, 6, 6, 6]);
    await backend.close();
  });

  it('a single thread leaves a command in the middle as well', { timeout: 60_000 }, async () => {
    const backend = new Backend(cpuAddon().open(0, { threads: 1 }));
    const count = 1 << 25;
    const x = backend.empty([count], 'f32');
    const stop = new AbortController();
    fill(x, 0);
    await backend.flush();
    const started = performance.now();
    fill(x, 1);
    await backend.flush();
    const whole = performance.now() - started;
    backend.cancellable(stop.signal, () => {
      for (let i = 0; i < 50; i++) fill(x, 2);
    });
    stop.abort();
    await backend.flush();
    expect(performance.now() - started - whole).toBeLessThan(Math.max(whole * 8, 100));
    await backend.close();
  });
});

it('everything after close is a DisposedError', async () => {
  const backend = new Backend(cpuAddon().open(0, { threads: 1 }));
  const x = backend.tensor([1, 2], [2], 'f32');
  const program = backend.capture(() => fill(x, 1));
  const file = backend.openFile(process.execPath);
  const closing = backend.close();
  expect(backend.close()).toBe(closing);
  await closing;
  const calls: Record<string, () => unknown> = {
    empty: () => backend.empty([1], 'f32'),
    allocate: () => backend.allocate([1], 'f32'),
    memory: () => backend.memory(),
    trim: () => backend.trim(),
    flush: () => backend.flush(),
    read: () => x.data(),
    op: () => add(x, x),
    capture: () => backend.capture(() => undefined),
    replay: () => program.replay(),
    openFile: () => backend.openFile(process.execPath),
    loadFile: () => backend.loadFile(file, 0, [1], 'f32'),
    mapFile: () => backend.mapFile(file, 0, [1], 'f32'),
    upload: () => backend.upload(x, new Uint8Array(8)),
    receive: () => (backend.receive as (a: Tensor, b: Tensor) => void)(x, x),
  };
  for (const [name, call] of Object.entries(calls))
    await expect((async () => call())(), name).rejects.toBeInstanceOf(DisposedError);
  for (const dispose of [() => x.dispose(), () => program.dispose(), () => file.close()]) dispose();
});
