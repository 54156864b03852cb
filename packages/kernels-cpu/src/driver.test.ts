import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { commandCodes, encode, type CommandArgs, type CommandName, type Driver, type TensorRef } from '@q/tensor';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { addonCandidates, cpuAddon, loadAddon } from './index.js';

const addon = cpuAddon();
const f32 = (buffer: number, count: number, at = 0): TensorRef => ({
  buffer,
  offset: at * 4,
  dtypeCode: 0,
  bytes: count * 4,
});
const i32 = (buffer: number, count: number): TensorRef => ({ buffer, offset: 0, dtypeCode: 5, bytes: count * 4 });

let driver: Driver;
beforeEach(() => {
  driver = addon.open(0, { threads: 2 });
});
afterEach(async () => {
  await driver.close().catch(() => undefined); // a test may have closed it
});

const submit = <N extends CommandName>(name: N, args: CommandArgs<N>) =>
  driver.submit(commandCodes[name], encode(name, args));
const floats = async (buffer: number, count: number) => [...new Float32Array(await driver.read(buffer, 0, count * 4))];
const upload = (values: ArrayBufferView) => {
  const buffer = driver.alloc(values.byteLength);
  driver.write(buffer, 0, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return buffer;
};
const resident = () => process.memoryUsage.rss();
const rows = (id: number) => {
  const ids = upload(Int32Array.from([0, id]));
  const table = upload(new Float32Array(8).fill(1));
  const out = upload(new Float32Array(4));
  submit('embedding', {
    table: f32(table, 8),
    ids: i32(ids, 2),
    out: f32(out, 4),
    rows: 2,
    width: 2,
    vocab: 4,
    scale: 1,
  });
  return out;
};

describe('order', () => {
  it('runs writes, commands and reads in the order of the calls', async () => {
    const x = upload(Float32Array.from([1, 2, 3]));
    const reads = [];
    for (let i = 0; i < 50; i++) {
      submit('add', { a: f32(x, 3), b: f32(x, 3), out: f32(x, 3), count: 3 });
      if (i % 10 === 9) {
        reads.push(floats(x, 3));
        driver.write(x, 0, new Uint8Array(Float32Array.from([1, 2, 3]).buffer));
      }
    }
    for (const read of reads) expect(await read).toEqual([1024, 2048, 3072]);
  });

  it('copies the words, and small writes, before it returns', async () => {
    const data = Float32Array.from([5, 6]);
    const x = driver.alloc(8);
    driver.write(x, 0, new Uint8Array(data.buffer));
    data.fill(0);
    const words = encode('scale', { x: f32(x, 2), out: f32(x, 2), count: 2, factor: 2, softcap: 0 });
    driver.submit(commandCodes.scale, words);
    words.fill(0);
    expect(await floats(x, 2)).toEqual([10, 12]);
  });

  it('holds a large write until it is done', async () => {
    const count = 1 << 20;
    const x = driver.alloc(count * 4);
    driver.write(x, 0, new Uint8Array(new Float32Array(count).fill(7).buffer));
    const back = new Float32Array(await driver.read(x, 0, count * 4));
    expect(back.every((value) => value === 7)).toBe(true);
  });
});

it('settles many promises that come back together, without warnings', async () => {
  const warnings: string[] = [];
  const note = (warning: Error) => void warnings.push(warning.message);
  process.on('warning', note);
  const others = Array.from({ length: 4 }, () => addon.open(0, { threads: 1 }));
  for (let i = 0; i < 20; i++)
    await Promise.all(others.flatMap((other) => [other.flush(), other.flush(), other.flush()]));
  await Promise.all(others.map((other) => other.close()));
  await new Promise((resolve) => setImmediate(resolve));
  process.off('warning', note);
  expect(warnings).toEqual([]);
});

describe('errors', () => {
  it('reports a failed command once, by name, and goes on', async () => {
    const bad = rows(99);
    const good = rows(3);
    await expect(driver.flush()).rejects.toMatchObject({
      code: 'command',
      command: 'embedding',
      message: expect.stringContaining('99'),
    });
    await expect(driver.flush()).resolves.toBeUndefined();
    expect(await floats(good, 4)).toEqual([1, 1, 1, 1]);
    rows(-2);
    await expect(driver.read(bad, 0, 4)).rejects.toMatchObject({ code: 'command', command: 'embedding' });
  });

  it('refuses what reaches outside a buffer when it is submitted', () => {
    const x = driver.alloc(16);
    const scale = (ref: TensorRef) => () =>
      submit('scale', { x: ref, out: f32(x, 4), count: 4, factor: 1, softcap: 0 });
    expect(scale(f32(x, 5))).toThrow(/^x has 20 bytes from byte 0 of buffer .*, which has 16$/);
    expect(scale(f32(x, 4, 1))).toThrow(/^x has 16 bytes from byte 4/);
    expect(scale({ ...f32(x, 1), offset: -4 })).toThrow(
      expect.objectContaining({ command: 'scale', message: expect.stringMatching(/^x has/) }),
    );
    expect(scale(f32(x + 1000, 1))).toThrow(/does not exist/);
    expect(scale({ ...f32(x, 1), dtypeCode: 12 })).toThrow(/dtype/);
    expect(scale({ ...f32(x, 1), bytes: NaN })).toThrow(/integer/);
    expect(scale(f32(0, 0))).toThrow(/^x is missing/);
    expect(() => driver.submit(999, new Float64Array(4))).toThrow(/no command/);
    expect(() => driver.submit(commandCodes.scale, new Float64Array(2))).toThrow(/too few/);
    expect(() => driver.submit(commandCodes.fill, Float64Array.from([x, 0, 0, 16, 1, 1]))).toThrow(/too many/);
    expect(() => driver.write(x, 8, new Uint8Array(16))).toThrow(/outside buffer/);
  });

  it('refuses sizes that disagree with the tensors, on the queue', async () => {
    const x = driver.alloc(16);
    submit('softmax', { x: f32(x, 4), out: f32(x, 4), rows: 2 ** 40, width: 2 ** 40 });
    await expect(driver.flush()).rejects.toMatchObject({ command: 'softmax' });
    submit('add', { a: f32(x, 4), b: f32(x, 4), out: f32(x, 4), count: 5 });
    await expect(driver.flush()).rejects.toMatchObject({
      command: 'add',
      message: expect.stringContaining('5 are needed'),
    });
  });

  it('says how much is wanted and free when memory is out', () => {
    expect(() => driver.alloc(2 ** 50)).toThrow(
      expect.objectContaining({ code: 'out_of_memory', wantedBytes: 2 ** 50, freeBytes: expect.any(Number) }),
    );
    expect(() => driver.alloc(0)).toThrow(/at least 1/);
  });
});

describe('capture', () => {
  it('records without running, and replays with the buffers it keeps', async () => {
    const x = upload(Float32Array.from([1, 1]));
    const step = upload(Float32Array.from([2, 3]));
    driver.beginCapture();
    submit('add', { a: f32(x, 2), b: f32(step, 2), out: f32(x, 2), count: 2 });
    submit('add', { a: f32(x, 2), b: f32(step, 2), out: f32(x, 2), count: 2 });
    expect(() => driver.write(x, 0, new Uint8Array(4))).toThrow(/beginCapture/);
    await expect(driver.flush()).rejects.toThrow(/beginCapture/);
    const program = driver.endCapture();
    expect(await floats(x, 2)).toEqual([1, 1]);
    driver.release(step);
    await driver.flush();
    for (let i = 0; i < 10; i++) driver.replay(program);
    expect(await floats(x, 2)).toEqual([41, 61]);
    driver.replay(program);
    driver.releaseProgram(program);
    expect(() => driver.replay(program)).toThrow(/does not exist/);
    expect(await floats(x, 2)).toEqual([45, 67]);
    driver.release(x);
    await driver.flush();
    expect(driver.memory().allocatedBytes).toBe(0);
  });

  it('reports a failure of a replayed command', async () => {
    const [ids, table, out] = [upload(Int32Array.from([9])), upload(new Float32Array(4)), upload(new Float32Array(2))];
    driver.beginCapture();
    submit('embedding', {
      table: f32(table, 4),
      ids: i32(ids, 1),
      out: f32(out, 2),
      rows: 1,
      width: 2,
      vocab: 2,
      scale: 1,
    });
    const program = driver.endCapture();
    driver.replay(program);
    await expect(driver.flush()).rejects.toMatchObject({ command: 'embedding' });
    driver.write(ids, 0, new Uint8Array(4));
    driver.replay(program);
    await driver.flush();
  });
});

describe('memory', () => {
  it('frees after the commands before the release, and returns large buffers to the system', async () => {
    const bytes = 96 << 20;
    const before = resident();
    for (let i = 0; i < 5; i++) {
      const x = driver.alloc(bytes);
      submit('fill', { out: f32(x, bytes / 4), value: i });
      const last = driver.read(x, bytes - 4, 4);
      driver.release(x);
      expect(() => driver.release(x)).toThrow(/was released/);
      expect(new Float32Array(await last)[0]).toBe(i);
    }
    await driver.flush();
    expect(driver.memory().allocatedBytes).toBe(0);
    expect(resident() - before).toBeLessThan(24 << 20);
  });
});

describe('files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'q-cpu-'));
  const path = join(folder, 'data.bin');
  const values = Float32Array.from({ length: 3_000_000 }, (_, i) => i);
  writeFileSync(path, new Uint8Array(values.buffer));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('reads and maps any range', async () => {
    const file = driver.openFile(path);
    const x = driver.alloc(values.byteLength);
    driver.readFile(file, 0, x, 0, values.byteLength);
    const mapped = driver.mapFile(file, 4004, 400);
    driver.closeFile(file);
    expect(Buffer.from(await driver.read(x, 0, values.byteLength)).equals(Buffer.from(values.buffer))).toBe(true);
    expect((await floats(mapped, 100))[99]).toBe(1100);
    expect(() => driver.write(mapped, 0, new Uint8Array(4))).toThrow(/read-only/);
    driver.release(mapped);
    expect(() => driver.readFile(file, 0, x, 0, 4)).toThrow(expect.objectContaining({ code: 'file' }));
  });

  it('reports files and ranges that are not there', async () => {
    expect(() => driver.openFile(join(folder, 'none'))).toThrow(expect.objectContaining({ code: 'file' }));
    const file = driver.openFile(path);
    expect(() => driver.mapFile(file, values.byteLength - 4, 8)).toThrow(expect.objectContaining({ code: 'file' }));
    const x = driver.alloc(8);
    driver.readFile(file, values.byteLength - 4, x, 0, 8);
    await expect(driver.flush()).rejects.toMatchObject({
      code: 'file',
      message: expect.stringContaining('ends before'),
    });
  });
});

describe('close', () => {
  it('finishes the queue first; later calls fail with "closed"', async () => {
    const x = upload(Float32Array.from([3]));
    submit('scale', { x: f32(x, 1), out: f32(x, 1), count: 1, factor: 2, softcap: 0 });
    const value = floats(x, 1);
    const closed = driver.close();
    expect(() => driver.alloc(4)).toThrow(expect.objectContaining({ code: 'closed' }));
    expect(await value).toEqual([6]);
    await closed;
    await expect(driver.flush()).rejects.toMatchObject({ code: 'closed' });
    await expect(driver.close()).rejects.toMatchObject({ code: 'closed' });
  });
});

describe('environments', () => {
  it('ends cleanly with a worker thread or process that leaves commands queued, and is not held open by an idle driver', () => {
    const source = `
      const { Worker, isMainThread } = require('node:worker_threads');
      const driver = require(process.env.ADDON).open(0, { threads: 2 });
      const x = driver.alloc(1 << 26);
      const fill = () => driver.submit(0, Float64Array.from([x, 0, 0, 1 << 26, 1]));
      for (let i = 0; i < 20; i++) fill();
      if (isMainThread) new Worker(__filename).on('online', function () { setTimeout(() => this.terminate().then(() => console.log('done')), 300); });
      else { driver.flush(); setInterval(fill, 1); }`;
    const script = join(mkdtempSync(join(tmpdir(), 'q-cpu-')), 'ends.cjs');
    writeFileSync(script, source);
    const { status, stdout, stderr } = spawnSync(process.execPath, [script], {
      encoding: 'utf8',
      env: { ...process.env, ADDON: addonCandidates()[1] },
      timeout: 30_000,
    });
    rmSync(dirname(script), { recursive: true });
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: 'done\n', stderr: '' });
  });

  it('uses no processor time while idle', async () => {
    await driver.flush();
    await new Promise((resolve) => setTimeout(resolve, 50));
    const before = process.cpuUsage();
    await new Promise((resolve) => setTimeout(resolve, 500));
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 500_000).toBeLessThan(0.1);
  });
});

describe('event loop', () => {
  it('stays free while the queue is busy', { retry: 2 }, async () => {
    const count = 1 << 22;
    const x = driver.alloc(count * 4);
    submit('random', { out: f32(x, count), kind: 0, scale: 1, seed: 1 });
    await driver.flush();
    const p99 = async (work: () => Promise<void>): Promise<number> => {
      const delay = monitorEventLoopDelay({ resolution: 1 });
      delay.enable();
      for (const end = performance.now() + 1000; performance.now() < end;) await work();
      delay.disable();
      return delay.percentile(99) / 1e6;
    };
    // Other processes delay the loop too: what they do to an idle one is not the driver's.
    const idle = await p99(() => new Promise((resolve) => setTimeout(resolve, 10)));
    const busy = await p99(async () => {
      for (let i = 0; i < 8; i++) submit('activation', { x: f32(x, count), out: f32(x, count), count, kind: 2 });
      await driver.flush();
    });
    expect(busy).toBeLessThan(10 + idle);
  });
});

describe('loading', () => {
  it('lists what was tried', () => {
    expect(addonCandidates()).toHaveLength(2);
    expect(() => loadAddon(['/nowhere/q_cpu.node'])).toThrow(/no native addon.*nowhere.*build it/s);
  });

  it('gives a command that a shell takes, wherever a package manager put the package', () => {
    const failed = (() => {
      try {
        return loadAddon(['/nowhere/q_cpu.node']);
      } catch (error) {
        return (error as Error).message;
      }
    })();
    const [, script] = /: node (".*")$/.exec(failed as string)!;
    const path = execFileSync('sh', ['-c', `printf %s ${script}`], { encoding: 'utf8' });
    expect(existsSync(path), path).toBe(true);
    expect(path).toMatch(/kernels-cpu.scripts.build-native\.mjs$/);
  });

  it('refuses options that it does not know', () => {
    expect(() => addon.open(1, {})).toThrow(/one CPU device/);
    expect(() => addon.open(0, { threads: 0 })).toThrow(/threads/);
    expect(() => addon.open(0, { thread: 1 } as object)).toThrow(/unknown option/);
  });
});

describe('files that change while they are mapped', () => {
  const page = 4096;
  const folder = mkdtempSync(join(tmpdir(), 'q-cpu-mapped-'));
  const path = join(folder, 'weights');
  const bytes = 64 * page;
  const fill = (value: number) => new Uint8Array(bytes).fill(value);
  afterAll(() => rmSync(folder, { recursive: true }));

  /** Maps the whole file and looks at a byte of it. */
  async function mapped(): Promise<{ buffer: number; byteAt: (offset: number) => Promise<number> }> {
    writeFileSync(path, fill(1));
    const file = driver.openFile(path);
    const buffer = driver.mapFile(file, 0, bytes);
    driver.closeFile(file);
    const byteAt = async (offset: number) => new Uint8Array(await driver.read(buffer, offset, 1))[0];
    expect(await byteAt(0)).toBe(1);
    return { buffer, byteAt };
  }

  it('cut short: an error that names the file, until the mapping is given back; the process lives', async () => {
    const { buffer, byteAt } = await mapped();
    truncateSync(path, page);
    for (const offset of [bytes - 1, 0, 3 * page])
      await expect(byteAt(offset)).rejects.toMatchObject({
        code: 'file',
        message: expect.stringContaining(path) as string,
      });
    await expect(driver.flush()).rejects.toMatchObject({
      code: 'file',
      message: expect.stringMatching(/cut short/) as string,
    });
    driver.release(buffer);
    await driver.flush();
  });

  it('cut short while commands use it', async () => {
    const { buffer } = await mapped();
    const out = driver.alloc(bytes);
    truncateSync(path, 2 * page);
    submit('cast', { x: f32(buffer, bytes / 4), out: f32(out, bytes / 4) });
    await expect(driver.read(out, 0, 4)).rejects.toMatchObject({ code: 'file' });
    driver.release(buffer);
    driver.release(out);
    await driver.flush();
  });

  it('written to: an error, not other numbers', async () => {
    const { buffer, byteAt } = await mapped();
    await new Promise((resolve) => setTimeout(resolve, 20)); // the clock of files ticks every few ms
    writeFileSync(path, fill(2), { flag: 'r+' });
    await expect(byteAt(0)).rejects.toMatchObject({
      code: 'file',
      message: expect.stringMatching(/written to/) as string,
    });
    driver.release(buffer);
    await driver.flush();
  });

  it('another file in its place, or none: the mapping keeps the old one', async () => {
    const { buffer, byteAt } = await mapped();
    writeFileSync(`${path}.new`, fill(2));
    renameSync(`${path}.new`, path);
    expect(await byteAt(bytes - 1)).toBe(1);
    rmSync(path);
    expect(await byteAt(0)).toBe(1);
    driver.release(buffer);
    await driver.flush();
  });

  it('opens no FIFO', () => {
    const fifo = join(folder, 'fifo');
    spawnSync('mkfifo', [fifo]);
    expect(() => driver.openFile(fifo)).toThrow(/no regular file/);
  });
});
