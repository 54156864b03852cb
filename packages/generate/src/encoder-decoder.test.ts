import { ConfigError, DisposedError } from '@q/config';
import type { Seq2SeqLM } from '@q/models';
import type { Backend } from '@q/tensor';
import { describe, expect, it, vi } from 'vitest';
import { Engine } from './engine.js';
import { PastState } from './forward.js';
import type { GenerationRequest } from './options.js';
import { backendOf, collect, greedy, randomModel, randomT5, request, translateStepByStep } from './testing.js';

const count = 6;
const sources = [[5, 6, 7], [8], Array.from({ length: 40 }, (_, i) => (i * 7) % 50), [1, 2, 3, 4, 5, 6, 7, 8, 9]];
const begins = [[0], [0, 3, 4], [0], [0, 9]];

/** One request for each source. */
const translations = (change: Partial<GenerationRequest> = {}): GenerationRequest[] =>
  sources.map((encoderIds, i) => request(begins[i], count, { encoderIds, ...change }));

const engineOf = (model: Seq2SeqLM, backend: Backend, options: object = {}) =>
  new Engine(model, backend, { dtype: 'f32', ...options });

/** The tokens of each request by itself, without recorded programs and batches. */
const oneByOne = async (model: Seq2SeqLM, backend: Backend): Promise<number[][]> => {
  const tokens: number[][] = [];
  for (const [i, source] of sources.entries())
    tokens.push(await translateStepByStep(model, backend, source, begins[i], count));
  return tokens;
};

describe('an encoder-decoder', () => {
  it.each([{}, { prefillChunk: 2 }, { prefillChunk: 12 }, { maxBatchSize: 2 }, { prefillChunk: Infinity }])(
    'gives a ragged batch the tokens that each prompt gets by itself, with %j',
    async (options) => {
      const backend = backendOf();
      const model = randomT5(backend);
      const expected = await oneByOne(model, backend);
      expect(new Set(expected.flat()).size).toBeGreaterThan(4);
      const engine = engineOf(model, backend, options);
      expect(await collect(engine.submit(translations()))).toEqual(expected);
      expect(await collect(engine.submit(translations().slice(1, 2)))).toEqual(expected.slice(1, 2));
      await engine.dispose();
    },
  );

  it('reads a text once for all requests that have the same list', async () => {
    const backend = backendOf();
    const model = randomT5(backend);
    const encode = vi.spyOn(model, 'encode');
    const engine = engineOf(model, backend, { maxBatchSize: 2 });
    const sampled = (seed: number) => ({ ...greedy, doSample: true, seed });
    const same = Array.from({ length: 4 }, (_, seed) =>
      request([0], seed === 0 ? 9 : 2, { encoderIds: sources[0], sampling: sampled(seed) }),
    );
    const together = await collect(engine.submit(same));
    expect(encode).toHaveBeenCalledTimes(1);
    for (const [i, one] of same.entries()) expect(await collect(engine.submit([one]))).toEqual([together[i]]);
    await engine.dispose();
  });

  it('takes a forced first token, and goes on from it', async () => {
    const backend = backendOf();
    const model = randomT5(backend);
    const engine = engineOf(model, backend);
    const [tokens] = await collect(
      engine.submit([request([0], count, { encoderIds: sources[0], forcedFirstTokenId: 11 })]),
    );
    const rest = await translateStepByStep(model, backend, sources[0], [0, 11], count - 1);
    expect(tokens).toEqual([11, ...rest]);
    await engine.dispose();
  });

  it('frees its blocks and memory when it ends, is left, aborted or disposed', async () => {
    const backend = backendOf();
    const model = randomT5(backend);
    await oneByOne(model, backend); // makes the tables that stay
    await backend.flush();
    const before = backend.memory().usedBytes;
    const engine = engineOf(model, backend);
    await collect(engine.submit(translations()));
    const kept = backend.memory().usedBytes;
    for await (const step of engine.submit(translations())) if (step.index === 1) break;
    const aborter = new AbortController();
    const aborted = collect(engine.submit(translations(), { signal: aborter.signal }));
    aborter.abort(new Error('enough'));
    await expect(aborted).rejects.toThrow('enough');
    expect(await collect(engine.submit(translations()))).toHaveLength(4);
    expect(backend.memory().usedBytes).toBe(kept);
    const running = collect(engine.submit(translations({ maxNewTokens: 30 })));
    running.catch(() => undefined);
    await engine.dispose();
    await expect(running).rejects.toThrow(DisposedError);
    expect(backend.memory().usedBytes).toBe(before);
  });

  it.each([
    [{ encoderIds: undefined }, /prompt 0 is undefined/],
    [{ encoderIds: [] }, /prompt 0 has no tokens/],
    [{ encoderIds: [50] }, /prompt 0\[0\]: 50 is no token id/],
    [{ encoderIds: [1], forcedFirstTokenId: 50 }, /forcedBosTokenId is 50/],
  ])('refuses %j', async (change, message) => {
    const backend = backendOf();
    const engine = engineOf(randomT5(backend), backend);
    const run = collect(engine.submit([request([0], 2, change)]));
    await expect(run).rejects.toThrow(ConfigError);
    await expect(run).rejects.toThrow(message);
  });

  it('decodes from a past only what its encoder has read, and reads once', () => {
    const backend = backendOf();
    using past = new PastState(randomT5(backend), backend, { sequences: 1, maxLength: 4, dtype: 'f32' });
    expect(() => past.forward([[0]])).toThrow(/read nothing yet/);
    past.encode([[1, 2]]).dispose();
    expect(() => past.encode([[1, 2]])).toThrow(/already/);
    past.forward([[0]]).dispose();
    expect(past.lengths).toEqual([1]);
  });
});

it('a model without encoder refuses texts for one', async () => {
  const backend = backendOf();
  const model = randomModel(backend);
  const run = new Engine(model, backend, { dtype: 'f32' }).submit([request([1], 2, { encoderIds: [1] })]);
  await expect(collect(run)).rejects.toThrow(/ids for an encoder.*LlamaForCausalLM has none/);
  using past = new PastState(model, backend, { sequences: 1, maxLength: 4, dtype: 'f32' });
  expect(() => past.encode([[1]])).toThrow(/no encoder/);
});
