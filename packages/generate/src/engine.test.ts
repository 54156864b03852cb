// The engine on the reference backend, with random weights and every kind of rotary scaling.
import { ConfigError } from '@q/config';
import { blocksFor, kvBlockSize, type CausalLM } from '@q/models';
import type { Backend } from '@q/tensor';
import { describe, expect, it } from 'vitest';
import { KvCache } from './cache.js';
import { Engine, type EngineOptions } from './engine.js';
import { PastState } from './forward.js';
import type { GenerationRequest } from './options.js';
import { perplexityOf, scoreWindows } from './score.js';
import { backendOf, greedy, llamaText, randomModel, request, stepByStep } from './testing.js';

function modelWith(rope: Record<string, unknown> = {}): { model: CausalLM; backend: Backend } {
  const backend = backendOf();
  return { model: randomModel(backend, llamaText(rope)), backend };
}

const ropes: [string, Record<string, unknown>][] = [
  ['default', {}],
  ['linear', { rope_type: 'linear', factor: 3 }],
  ['dynamic', { rope_type: 'dynamic', factor: 2 }],
  ['yarn', { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 16 }],
  [
    'llama3',
    { rope_type: 'llama3', factor: 4, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 16 },
  ],
  [
    'longrope',
    {
      rope_type: 'longrope',
      short_factor: [1, 1.5, 2, 3],
      long_factor: [2, 3, 5, 8],
      original_max_position_embeddings: 16,
    },
  ],
];

async function run(
  model: CausalLM,
  backend: Backend,
  requests: readonly GenerationRequest[],
  options: Partial<EngineOptions> = {},
): Promise<number[][]> {
  const engine = new Engine(model, backend, { dtype: 'f32', ...options });
  const tokens: number[][] = requests.map(() => []);
  for await (const { sequence, tokenId } of engine.submit(requests)) tokens[sequence].push(tokenId);
  await engine.dispose();
  return tokens;
}

const prompts = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]];

describe.each(ropes)('rope %s', (_, rope) => {
  it('a batch gives the tokens of each prompt run step by step, past the length it was made for', async () => {
    const { model, backend } = modelWith(rope);
    const expected = [];
    for (const ids of prompts) expected.push(await stepByStep(model, backend, ids, 20));
    expect(
      await run(
        model,
        backend,
        prompts.map((ids) => request(ids, 20)),
      ),
    ).toEqual(expected);
  });
});

const longPrompt = Array.from({ length: 30 }, (_, i) => (7 * i + 3) % 50);

describe.each(ropes)('rope %s', (_, rope) => {
  it('a prompt is scaled by its whole length, however it is cut and whatever runs beside it', async () => {
    const { model, backend } = modelWith(rope);
    const expected = await stepByStep(model, backend, longPrompt, 8);
    for (const prefillChunk of [1, 5, 17, Infinity])
      expect(await run(model, backend, [request(longPrompt, 8)], { prefillChunk })).toEqual([expected]);
    const beside = await run(model, backend, [request([3, 1], 9), request(longPrompt, 8)], { prefillChunk: 7 });
    expect(beside[1]).toEqual(expected);
  });
});

describe('engine', () => {
  it('gives the same tokens whatever the chunks, the batch size and the lengths wanted', async () => {
    const { model, backend } = modelWith();
    const requests = [...prompts, ...prompts].map((ids, i) => request(ids, 5 + 3 * i));
    const expected = await run(model, backend, requests);
    expect(expected.map(({ length }) => length)).toEqual(requests.map(({ maxNewTokens }) => maxNewTokens));
    for (const options of [
      { prefillChunk: 1 },
      { prefillChunk: 4 },
      { maxBatchSize: 1 },
      { maxBatchSize: 2, prefillChunk: 3 },
    ])
      expect(await run(model, backend, requests, options)).toEqual(expected);
  });

  it('ends each sequence at its own end token', async () => {
    const { model, backend } = modelWith();
    const all = await run(
      model,
      backend,
      prompts.map((ids) => request(ids, 16)),
    );
    const ends = all.map((tokens, i) => tokens[3 * i]);
    const short = await run(
      model,
      backend,
      prompts.map((ids, i) => request(ids, 16, { eosTokenIds: [ends[i]] })),
    );
    expect(short).toEqual(all.map((tokens, i) => tokens.slice(0, tokens.indexOf(ends[i]) + 1)));
  });

  it('returns all memory', async () => {
    const { model, backend } = modelWith();
    await run(model, backend, [request([1], 3)]);
    const before = backend.memory().usedBytes;
    await run(
      model,
      backend,
      prompts.map((ids) => request(ids, 12)),
    );
    expect(backend.memory().usedBytes).toBe(before);
    model.dispose();
    expect(backend.memory().usedBytes).toBe(0);
  });

  it('fills the context to its last token and refuses one more', async () => {
    const { model, backend } = modelWith();
    expect((await run(model, backend, [request([1, 2, 3, 4], 60)]))[0].length).toBe(60);
    await expect(run(model, backend, [request([1, 2, 3, 4], 61)])).rejects.toThrow(/lower maxNewTokens to 60/);
    await expect(run(model, backend, [request(Array<number>(64).fill(1), 1)])).rejects.toThrow(/shorten the prompt/);
  });

  it('reaches as far as the rotary scaling', async () => {
    const { model, backend } = modelWith({ rope_type: 'linear', factor: 2 });
    expect((await run(model, backend, [request([1, 2], 126)]))[0].length).toBe(126);
    await expect(run(model, backend, [request([1, 2], 127)])).rejects.toThrow(/maxContext 128/);
    await expect(scoreWindows(model, backend, [Array<number>(129).fill(1)], { dtype: 'f32' })).rejects.toThrow(
      /windows\[0\] has 129 tokens.*has 128/,
    );
    const past = { sequences: 1, maxLength: 129, dtype: 'f32' } as const;
    expect(() => new PastState(model, backend, past)).toThrow(/maxLength is 129.*1 to 128/);
  });

  it.each([0, -1, 1.5, Number.NaN, 2n as unknown as number])(
    'refuses %s as a number of sequences or tokens',
    (value) => {
      const { model, backend } = modelWith();
      for (const name of ['maxBatchSize', 'prefillChunk'])
        expect(() => new Engine(model, backend, { dtype: 'f32', [name]: value })).toThrow(`${name} is`);
      for (const name of ['sequences', 'maxLength']) {
        const options = { sequences: 1, maxLength: 4, dtype: 'f32' as const, [name]: value };
        expect(() => new PastState(model, backend, options)).toThrow(`${name} is`);
      }
    },
  );

  it.each([
    [[], /there is no prompt/],
    [[request([], 3)], /prompt 0 has no tokens/],
    [[request([1], 3), request([50], 3)], /prompt 1\[0\]: 50 is no token id/],
    [[request([1], 0)], /maxNewTokens is 0/],
    [[request([1], 3, { stopStrings: [''] })], /empty text/],
    [[request([1], 3, { sampling: { ...greedy, seed: -1 } })], /seed is -1/],
  ] as [GenerationRequest[], RegExp][])('refuses wrong requests: case %#', async (requests, message) => {
    const { model, backend } = modelWith();
    await expect(run(model, backend, requests)).rejects.toThrow(ConfigError);
    await expect(run(model, backend, requests)).rejects.toThrow(message);
  });
});

describe('cached forward', () => {
  it('is the forward pass of the whole', async () => {
    const { model, backend } = modelWith();
    const ids = prompts[2];
    using whole = new PastState(model, backend, { sequences: 1, maxLength: 14, dtype: 'f32' });
    using parts = new PastState(model, backend, { sequences: 1, maxLength: 14, dtype: 'f32' });
    const all = (await whole.forward([ids]).data()) as Float32Array;
    const pieces = [ids.slice(0, 6), ids.slice(6, 7), ids.slice(7)];
    const joined: number[] = [];
    for (const piece of pieces) joined.push(...((await parts.forward([piece]).data()) as Float32Array));
    joined.forEach((value, i) => expect(Math.abs(value - all[i])).toBeLessThan(1e-5));
    expect(() => parts.forward([[1]])).toThrow(/outgrows/);
  });

  it('scores windows as the softmax of the logits', async () => {
    const { model, backend } = modelWith();
    const windows = [prompts[2], prompts[0]];
    const means = await scoreWindows(model, backend, windows, { dtype: 'f32' });
    for (const [w, ids] of windows.entries()) {
      using past = new PastState(model, backend, { sequences: 1, maxLength: ids.length, dtype: 'f32' });
      const logits = (await model.logits(past.forward([ids])).data()) as Float32Array;
      const losses = ids.slice(1).map((id, i) => {
        const row = Array.from(logits.subarray(i * model.vocabSize, (i + 1) * model.vocabSize));
        return Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0)) - row[id];
      });
      expect(means[w]).toBeCloseTo(losses.reduce((a, b) => a + b) / losses.length, 5);
    }
    expect(perplexityOf(means)).toBeCloseTo(Math.exp((means[0] + means[1]) / 2), 12);
  });

  it.each([
    ['nothing', [], /means is an empty list/],
    ['a promise', Promise.resolve([1]), /means is/],
    ['texts', [1, '2'], /means\[1\] is "2", not a number/],
  ])('perplexityOf refuses %s', (_, means, message) => {
    expect(() => perplexityOf(means as number[])).toThrow(ConfigError);
    expect(() => perplexityOf(means as number[])).toThrow(message);
  });
});

describe('cache', () => {
  it('counts owners of blocks and refuses more than it has', () => {
    const { model, backend } = modelWith();
    const cache = new KvCache(model, backend, { blocks: 4, dtype: 'f16' });
    const first = cache.take(kvBlockSize + 1);
    expect([first.length, cache.freeBlocks, blocksFor(0)]).toEqual([2, 2, 0]);
    cache.share(first);
    cache.give(first);
    expect(cache.freeBlocks).toBe(2);
    expect(() => cache.take(3 * kvBlockSize)).toThrow(/3 blocks/);
    cache.give(first);
    expect(new Set(cache.take(4 * kvBlockSize)).size).toBe(4);
    cache.dispose();
  });
});
