// Copies between devices: driver to driver, and through host memory.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NativeError } from '@q/config';
import { transferCases } from '../conformance/transfer.js';
import { copy, fill } from '../ops/elementwise.js';
import { ReferenceDriver } from '../reference/driver.js';
import type { Driver } from '../driver/driver.js';
import { Backend } from './backend.js';

/** A device whose bytes take a while to arrive, and that copies to no other by itself. */
class DistantDriver extends ReferenceDriver {
  reads: { fail(error: Error): void }[] = [];

  override copyFrom(): boolean {
    return false;
  }

  override async read(buffer: number, offset: number, bytes: number): Promise<ArrayBuffer> {
    const copied = super.read(buffer, offset, bytes);
    copied.catch(() => undefined);
    await new Promise<void>((resolve, reject) => {
      this.reads.push({ fail: reject });
      setTimeout(resolve, 2);
    });
    return copied;
  }
}

/** Knows nothing of copies, as a driver that lacks the method. */
const withoutCopies = (): Driver => Object.assign(new DistantDriver(), { copyFrom: undefined });

describe.each([
  ['driver to driver', () => new ReferenceDriver(), () => new ReferenceDriver()],
  ['through host memory', () => new DistantDriver(), () => new DistantDriver()],
  ['from a driver that cannot', () => new DistantDriver(), () => new ReferenceDriver()],
  ['to a driver that cannot', () => new ReferenceDriver(), withoutCopies],
] as const)('%s', (_, openFrom, openTo) => {
  it.each(transferCases.map((c) => [c.name, c] as const))('%s', async (_, { run }) => {
    const pair = { from: new Backend(openFrom()), to: new Backend(openTo()) };
    try {
      await run(pair);
    } finally {
      await Promise.all([pair.from.close(), pair.to.close()]);
    }
  });
});

describe('while bytes are on their way', () => {
  let source: DistantDriver;
  let from: Backend;
  let to: Backend;
  beforeEach(() => {
    source = new DistantDriver();
    from = new Backend(source);
    to = new Backend(new DistantDriver());
  });
  afterEach(() => Promise.all([from.close(), to.close()]));

  it('what is queued behind them does not run, and nothing waits', async () => {
    const x = from.tensor([1, 2], [2], 'f32');
    const y = x.to(to);
    fill(y, 9);
    const read = y.data();
    expect(await Promise.race([read.then(() => 'read'), Promise.resolve('first')])).toBe('first');
    expect([...(await read)]).toEqual([9, 9]);
    await to.flush();
  });

  it('a failure of the source rejects the next promise of the target, once, and the queue goes on', async () => {
    const x = from.tensor([1, 2], [2], 'f32');
    const y = to.tensor([5, 5], [2], 'f32');
    copy(x, y);
    source.reads[0].fail(Object.assign(new Error('cable cut'), { code: 'device' }));
    fill(y.slice(0, 1), 6);
    await expect(to.flush()).rejects.toThrow(NativeError);
    await to.flush();
    expect([...(await y.data())]).toEqual([6, 5]);
  });

  it('a call that the driver refuses later rejects the next promise', async () => {
    const x = from.tensor([1], [1], 'f32');
    const y = x.to(to);
    to.loadFile({ id: 99 }, 0, [1], 'f32').dispose();
    y.dispose();
    await expect(to.flush()).rejects.toThrow();
    await to.flush();
  });

  it('copies hold each other up in the order of the calls', async () => {
    const x = from.tensor([1, 2, 3], [3], 'f32');
    const back = Array.from({ length: 20 }, (_, i) => {
      const there = x.to(to);
      fill(x, i);
      const home = there.to(from);
      there.dispose();
      return home;
    });
    const values = await Promise.all(back.map(async (tensor) => (await tensor.data())[1]));
    expect(values).toEqual([2, ...Array.from({ length: 19 }, (_, i) => i)]);
  });

  it('a small write is copied at once', async () => {
    const x = from.tensor([1], [1], 'f32');
    const y = x.to(to);
    const bytes = new Uint8Array(Float32Array.of(4).buffer);
    to.upload(y, bytes);
    bytes.fill(0);
    expect([...(await y.data())]).toEqual([4]);
  });
});
