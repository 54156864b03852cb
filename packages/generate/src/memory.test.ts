// Refused allocations: whatever is refused, everything that was taken for it comes back.
import { OutOfMemoryError } from '@q/config';
import { ReferenceDriver } from '@q/tensor';
import { describe, expect, it } from 'vitest';
import { Engine } from './engine.js';
import { PastState } from './forward.js';
import { scoreWindows } from './score.js';
import { backendOf, collect, llamaText, randomModel, request } from './testing.js';

/** A device that refuses from an allocation on. */
class FullDriver extends ReferenceDriver {
  /** Allocations until it is full. */
  left = Infinity;

  override alloc(bytes: number): number {
    if (this.left <= 0)
      throw Object.assign(new Error('out of memory'), { code: 'out_of_memory', wantedBytes: bytes, freeBytes: 0 });
    this.left -= 1;
    return super.alloc(bytes);
  }
}

const penalised = { doSample: true, temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1.2, seed: 3 };
const requests = [request([1, 2, 3], 4, { sampling: penalised }), request([4], 5)];
const small = { num_hidden_layers: 1, vocab_size: 12 };

describe.each([
  ['default', llamaText({}, small)],
  ['dynamic', llamaText({ rope_type: 'dynamic', factor: 2 }, small)],
])('rope %s', (_, text) => {
  it.each([
    ['generate', async (engine: Engine) => void (await collect(engine.submit(requests)))],
    [
      'createPast and forward',
      async ({ model, backend }: Engine) => {
        using past = new PastState(model, backend, { sequences: 3, maxLength: 40, dtype: 'f32' });
        past.forward([[1, 2], [3], [4, 5, 6]]).dispose();
        await backend.flush();
      },
    ],
    [
      'score',
      async ({ model, backend }: Engine) => {
        await scoreWindows(model, backend, [[1, 2, 3, 4]], { dtype: 'f32' });
      },
    ],
  ] as [string, (engine: Engine) => Promise<void>][])('%s, refused at each allocation in turn', async (__, call) => {
    let refusals = 0;
    for (let left = 0; ; left++) {
      const driver = new FullDriver();
      const backend = backendOf(driver);
      const model = randomModel(backend, text);
      const engine = new Engine(model, backend, { dtype: 'f32' });
      driver.left = left;
      const before = backend.memory().usedBytes;
      const error = await call(engine).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      const after = backend.memory().usedBytes;
      driver.left = Infinity;
      if (error === undefined) break;
      refusals += 1;
      expect(error).toBeInstanceOf(OutOfMemoryError);
      // The rotary table of the model may stay; it is asked for once.
      expect(after - before, `after ${left} allocations`).toBeLessThanOrEqual(64);
      await call(engine);
      await engine.dispose();
      model.dispose();
      expect(backend.memory().usedBytes).toBe(0);
    }
    expect(refusals).toBeGreaterThan(10);
  });
});
