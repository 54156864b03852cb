// Tensors, scopes, the pool, captured programs and their memory, on the reference driver.
import { writeFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ConfigError, DisposedError, DTypeError, NativeError, OutOfMemoryError, ShapeError } from '@q/config';
import { dtypes, parseDType, type DType } from '../dtype.js';
import { ReferenceDriver } from '../reference/driver.js';
import { add, fill } from '../ops/elementwise.js';
import { embedding } from '../ops/rows.js';
import { openBackend, type Backend } from './backend.js';
import { deviceName, parseDevice } from './device.js';
import type { Tensor } from './tensor.js';

let driver: ReferenceDriver;
let backend: Backend;
beforeEach(() => {
  driver = new ReferenceDriver();
  backend = openBackend(driver);
});
afterEach(() => backend.close());

const f32 = (values: readonly number[], shape: readonly number[] = [values.length]) =>
  backend.tensor(values, shape, 'f32');

describe('tensors', () => {
  it.each(Object.keys(dtypes) as DType[])('%s: bytes come back as they were written', async (dtype) => {
    const bytes = Uint8Array.from({ length: 6 * dtypes[dtype].bytes }, (_, i) => (i * 29) % 120);
    const tensor = backend.empty([2, 3], dtype);
    backend.upload(tensor, bytes);
    expect(await tensor.toBytes()).toEqual(bytes);
    expect((await tensor.data()).length).toBe(6);
    tensor.dispose();
  });

  it('slices and reshapes share memory, which lives until the last of them goes', async () => {
    const whole = f32([1, 2, 3, 4, 5, 6], [3, 2]);
    const rows = whole.slice(1, 3);
    const flat = rows.reshape([4]);
    whole.dispose();
    rows.dispose();
    expect([...(await flat.data())]).toEqual([3, 4, 5, 6]);
    expect(backend.memory().usedBytes).toBeGreaterThan(0);
    flat.dispose();
    expect(backend.memory().usedBytes).toBe(0);
    expect(() => f32([1, 2]).slice(1, 3)).toThrow(ShapeError);
    expect(() => f32([1, 2]).slice(-1, 1)).toThrow(ShapeError);
    expect(() => f32([1, 2]).reshape([3])).toThrow(ShapeError);
  });

  it('refuses use after dispose, and a second dispose does nothing', async () => {
    const tensor = f32([1]);
    tensor.dispose();
    tensor.dispose();
    expect(backend.memory().usedBytes).toBe(0);
    expect(() => tensor.ref()).toThrow(DisposedError);
    expect(() => add(tensor, tensor)).toThrow(DisposedError);
    expect(() => tensor.slice(0, 1)).toThrow(DisposedError);
    await expect(tensor.data()).rejects.toThrow(DisposedError);
  });

  it('refuses values and bytes of the wrong length', () => {
    expect(() => f32([1, 2], [3])).toThrow(ShapeError);
    expect(() => backend.upload(f32([1]), new Uint8Array(3))).toThrow(ShapeError);
  });

  it('can be empty', async () => {
    const none = f32([], [0, 4]);
    expect(none.rows).toBe(0);
    expect((await none.data()).length).toBe(0);
    expect((await add(none, none).data()).length).toBe(0);
  });
});

describe('scopes', () => {
  it('free what was made in them, except what they return or keep', () => {
    let kept: Tensor | undefined;
    const { result, list } = backend.scope(() => {
      const a = f32([1, 2]);
      kept = f32([3]).keep();
      return { result: add(a, a), list: [f32([4]), f32([5])] };
    });
    expect([result, ...list, kept!].map(({ disposed }) => disposed)).toEqual([false, false, false, false]);
    const size = backend.memory().usedBytes;
    for (const tensor of [result, ...list, kept!]) tensor.dispose();
    expect(size).toBe(4 * 256);
    expect(backend.memory().usedBytes).toBe(0);
  });

  it('hand their result to the scope around them', () => {
    let inner: Tensor | undefined;
    backend.scope(() => {
      inner = backend.scope(() => f32([1]));
      expect(inner.disposed).toBe(false);
    });
    expect(inner!.disposed).toBe(true);
  });

  it('free everything when they throw', () => {
    expect(() =>
      backend.scope(() => {
        f32([1]);
        throw new RangeError('no');
      }),
    ).toThrow(RangeError);
    expect(backend.memory().usedBytes).toBe(0);
  });
});

describe('memory', () => {
  it('reuses temporaries and returns them on trim', () => {
    for (let i = 0; i < 100; i++)
      backend.scope(
        () => add(f32(Array.from({ length: 1000 }, () => i)), f32(Array.from({ length: 1000 }, () => 1))).count,
      );
    const { usedBytes, idleBytes } = backend.memory();
    expect(usedBytes).toBe(0);
    expect(idleBytes).toBe(3 * 4096);
    expect(driver.memory().allocatedBytes).toBe(idleBytes);
    backend.trim();
    expect(backend.memory().idleBytes).toBe(0);
    expect(driver.memory().allocatedBytes).toBe(0);
  });

  it('serves a large request from a free buffer that is at most a quarter larger', () => {
    const mib = 2 ** 20;
    backend.empty([10 * mib], 'u8').dispose();
    backend.empty([9 * mib], 'u8').dispose();
    expect(driver.memory().allocatedBytes).toBe(10 * mib);
    backend.empty([6 * mib], 'u8').dispose();
    expect(driver.memory().allocatedBytes).toBe(16 * mib);
    expect(backend.memory().usedBytes).toBe(0);
    expect(backend.memory().idleBytes).toBe(16 * mib);
  });

  it('gives weights exactly their size, and back at once', () => {
    const weight = backend.allocate([1000], 'u8');
    expect(driver.memory().allocatedBytes).toBe(1000);
    weight.dispose();
    expect(driver.memory().allocatedBytes).toBe(0);
  });

  it('notes the peak', () => {
    backend.allocate([5000], 'u8').dispose();
    expect(backend.memory().peakBytes).toBe(5000);
    backend.resetPeak();
    expect(backend.memory().peakBytes).toBe(0);
  });

  it('tells how much was wanted when memory runs out, after giving back what is idle', () => {
    const gib = 2 ** 30;
    const { totalBytes } = backend.memory();
    const alloc = driver.alloc.bind(driver);
    const sizes = new Map<number, number>(); // stands for memory without taking it
    let used = 0;
    driver.alloc = (bytes) => {
      if (used + bytes > totalBytes)
        throw Object.assign(new Error('full'), {
          code: 'out_of_memory',
          wantedBytes: bytes,
          freeBytes: totalBytes - used,
        });
      const id = alloc(1);
      sizes.set(id, bytes);
      used += bytes;
      return id;
    };
    const release = driver.release.bind(driver);
    driver.release = (id) => {
      used -= sizes.get(id)!;
      release(id);
    };
    backend.empty([5 * gib], 'u8').dispose();
    const weight = backend.allocate([6 * gib], 'u8');
    const error = (() => {
      try {
        backend.allocate([3 * gib], 'u8');
      } catch (caught) {
        return caught as OutOfMemoryError;
      }
    })();
    expect(error).toBeInstanceOf(OutOfMemoryError);
    expect(error!.message).toContain(String(3 * gib));
    weight.dispose();
    const first = backend.empty([5 * gib], 'u8');
    first.dispose();
    expect(backend.empty([7 * gib], 'u8').bytes).toBe(7 * gib); // the idle 5 GiB are given back for it
  });
});

describe('captured programs', () => {
  const program = (x: Tensor, out: Tensor) => () => {
    const doubled = add(x, x);
    backend.submit('add', { a: doubled.ref(), b: doubled.ref(), out: out.ref(), count: out.count });
  };

  it('own their temporaries: what is made between replays cannot touch them', async () => {
    const [x, out] = [f32([1, 2]), f32([0, 0])];
    const captured = backend.capture(program(x, out));
    expect([...(await out.data())]).toEqual([0, 0]);
    const others = Array.from({ length: 4 }, () => f32([9, 9]));
    captured.replay();
    expect([...(await out.data())]).toEqual([4, 8]);
    for (const other of others) expect([...(await other.data())]).toEqual([9, 9]);
    fill(x, 5);
    captured.replay();
    expect([...(await out.data())]).toEqual([20, 20]);
    for (const tensor of [x, out, ...others]) tensor.dispose();
    captured.dispose();
    captured.dispose();
    backend.trim();
    expect(driver.memory().allocatedBytes).toBe(0);
    expect(() => captured.replay()).toThrow(DisposedError);
  });

  it('leave nothing behind when the recording throws', async () => {
    const x = f32([1, 2]);
    const released: number[] = [];
    const release = driver.releaseProgram.bind(driver);
    driver.releaseProgram = (id) => {
      released.push(id);
      release(id);
    };
    expect(() =>
      backend.capture(() => {
        add(x, x);
        throw new RangeError('no');
      }),
    ).toThrow(RangeError);
    expect(released.length).toBe(1);
    x.dispose();
    backend.trim();
    expect(driver.memory().allocatedBytes).toBe(0);
    expect([...(await add(f32([1]), f32([2])).data())]).toEqual([3]);
  });
});

describe('errors of the queue', () => {
  it('reject the next promise with the name of the op, once', async () => {
    const table = f32([1, 2, 3, 4], [2, 2]);
    embedding(table, backend.tensor([7], [1], 'i32'), { dtype: 'f32' });
    await expect(backend.flush()).rejects.toThrow(/\[embedding\][^]*7/);
    await backend.flush();
    expect([...(await table.data())]).toEqual([1, 2, 3, 4]);
  });

  it('say which file cannot be opened or ends early', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'q-tensor-'));
    try {
      expect(() => backend.openFile(join(folder, 'none'))).toThrow(/none/);
      await writeFile(join(folder, 'short'), new Uint8Array(6));
      using file = backend.openFile(join(folder, 'short'));
      backend.loadFile(file, 0, [2], 'f32');
      await expect(backend.flush()).rejects.toThrow(NativeError);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('a closed device refuses everything', async () => {
    const x = f32([1]);
    await backend.close();
    await backend.close();
    expect(() => f32([1])).toThrow(DisposedError);
    expect(() => add(x, x)).toThrow(DisposedError);
    expect(() => x.dispose()).not.toThrow();
  });
});

describe('names', () => {
  it('of devices', () => {
    expect(['cpu', 'cuda', 'cuda:3', 2, 'gpu:1'].map((name) => deviceName(parseDevice(name)))).toEqual([
      'cpu',
      'cuda:0',
      'cuda:3',
      'cuda:2',
      'cuda:1',
    ]);
    for (const bad of ['', 'cpu:1', 'tpu', 'cuda:', '-1']) expect(() => parseDevice(bad)).toThrow(ConfigError);
  });

  it('of element types', () => {
    expect(['BF16', 'bfloat16', 'torch.bfloat16', 'bf16'].map(parseDType)).toEqual(['bf16', 'bf16', 'bf16', 'bf16']);
    expect(() => parseDType('float8')).toThrow(DTypeError);
  });
});
