// Several callers of one engine: order, readers that pause or go away, aborts, dispose.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { setTimeout as sleep } from 'node:timers/promises';
import { DisposedError } from '@q/config';
import { ReferenceDriver } from '@q/tensor';
import { describe, expect, it } from 'vitest';
import { Engine } from './engine.js';
import { stepsAhead } from './steps.js';
import { backendOf, collect, llamaText, randomModel, request } from './testing.js';

class CountingDriver extends ReferenceDriver {
  replays = 0;

  override replay(program: number): void {
    this.replays += 1;
    super.replay(program);
  }
}

function engineWith(context = 64, driver?: ReferenceDriver): Engine {
  const backend = backendOf(driver);
  const text = llamaText({}, { max_position_embeddings: context });
  return new Engine(randomModel(backend, text), backend, { dtype: 'f32' });
}

const prompts = [[3, 1, 4], [1, 5, 9, 2, 6], [5], [3, 5, 8, 9]];
const requestsOf = (count: number) => prompts.map((ids) => [request(ids, count)]);

describe('several callers', () => {
  it('are all served, each with the tokens that it gets alone', async () => {
    const engine = engineWith();
    const alone = [];
    for (const requests of requestsOf(9)) alone.push(await collect(engine.submit(requests)));
    expect(await Promise.all(requestsOf(9).map((requests) => collect(engine.submit(requests))))).toEqual(alone);
    await engine.dispose();
  });

  it('are served in the order in which they began', async () => {
    const engine = engineWith();
    const order: number[] = [];
    const readers = requestsOf(4).map((requests) => engine.submit(requests));
    const read = async (i: number) => {
      await collect(readers[i]);
      order.push(i);
    };
    await Promise.all([2, 0, 3, 1].map(read));
    expect(order).toEqual([2, 0, 3, 1]);
    await engine.dispose();
  });

  it('do not wait for a reader that pauses, who gets his tokens later all the same', async () => {
    const engine = engineWith();
    const expected = await collect(engine.submit([request([7, 7], 40)]));
    const paused = engine.submit([request([7, 7], 40)]);
    const first = await paused.next();
    expect((await collect(engine.submit([request([1], 5)])))[0].length).toBe(5);
    expect([(first.value as { tokenId: number }).tokenId, ...(await collect(paused))[0]]).toEqual(expected[0]);
    await engine.dispose();
  });

  it('a reader alone is waited for, so that an engine does not run ahead without end', async () => {
    const driver = new CountingDriver();
    const engine = engineWith(1024, driver);
    const reader = engine.submit([request([7], 600)]);
    await reader.next();
    for (let before = -1; before !== driver.replays; await sleep(20)) before = driver.replays;
    expect(Math.abs(driver.replays - stepsAhead)).toBeLessThan(5);
    expect((await collect(reader))[0].length).toBe(599);
    await engine.dispose();
  });

  it('an abort while waiting leaves the queue at once, with its reason', async () => {
    const engine = engineWith();
    const running = engine.submit([request([7], 60)]);
    await running.next();
    const controller = new AbortController();
    const waiting = engine.submit([request([8], 5)], { signal: controller.signal });
    const first = waiting.next();
    controller.abort(new Error('no longer wanted'));
    await expect(first).rejects.toThrow('no longer wanted');
    expect(await waiting.next()).toEqual({ done: true, value: undefined });
    expect((await collect(running))[0].length).toBe(59);
    await engine.dispose();
  });

  it('leaving while a step is awaited ends the wait', async () => {
    const engine = engineWith();
    const running = engine.submit([request([7], 60)]);
    await running.next();
    const waiting = engine.submit([request([8], 5)]);
    const first = waiting.next();
    await waiting.return();
    expect((await first).done).toBe(true);
    expect((await collect(running))[0].length).toBe(59);
    await engine.dispose();
  });

  it('a failing call does not harm the next', async () => {
    const engine = engineWith();
    const wrong = engine.submit([request([99], 3)]);
    const right = collect(engine.submit([request([9], 3)]));
    await expect(wrong.next()).rejects.toThrow(/99 is no token id/);
    expect(await wrong.next()).toEqual({ done: true, value: undefined });
    expect((await right)[0].length).toBe(3);
    await engine.dispose();
  });

  it('an iterator that was forgotten is freed by the garbage collector', async () => {
    setFlagsFromString('--expose-gc');
    const collectGarbage = runInNewContext('gc') as () => void;
    const engine = engineWith(2048);
    let ended = 0;
    const begin = async () => {
      const { signal } = new AbortController();
      const add = signal.addEventListener.bind(signal);
      signal.addEventListener = add;
      const remove = signal.removeEventListener.bind(signal);
      signal.removeEventListener = (...rest: Parameters<typeof remove>) => {
        ended += 1;
        remove(...rest);
      };
      await engine.submit([request([7], 2000)], { signal }).next();
    };
    await begin();
    for (let i = 0; i < 400 && ended === 0; i++) {
      collectGarbage();
      await sleep(10);
    }
    expect(ended).toBe(1);
    await engine.dispose();
  }, 60_000);
});

describe('dispose', () => {
  it('ends what runs, what waits and what is unread with DisposedError, and frees the cache', async () => {
    const engine = engineWith();
    const [running, waiting] = [engine.submit([request([7], 60)]), engine.submit([request([8], 5)])];
    await running.next();
    const first = waiting.next();
    const disposed = engine.dispose();
    await expect(running.next()).rejects.toThrow(DisposedError);
    await expect(first).rejects.toThrow(DisposedError);
    await disposed;
    engine.model.dispose();
    expect(engine.backend.memory().usedBytes).toBe(0);
    await expect(engine.submit([request([1], 1)]).next()).rejects.toThrow(DisposedError);
    await engine.dispose();
  });

  it('takes tokens that were computed but not read', async () => {
    const engine = engineWith();
    const reader = engine.submit([request([7], 6)]);
    await reader.next();
    await collect(engine.submit([request([8], 1)]));
    await engine.dispose();
    await expect(reader.next()).rejects.toThrow(DisposedError);
    expect((await reader.next()).done).toBe(true);
  });

  it('does not trouble a reader who has everything', async () => {
    const engine = engineWith();
    const reader = engine.submit([request([7], 2)]);
    await reader.next();
    await reader.next();
    await collect(engine.submit([request([8], 1)]));
    await engine.dispose();
    expect((await reader.next()).done).toBe(true);
  });
});
