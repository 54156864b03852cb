// The engine on the reference backend, with random weights and every kind of rotary scaling.
import { parseModelConfig } from '@q/config';
import { buildModel, parameterSlots, type CausalLM } from '@q/models';
import { fillRandom, referenceBackend, type Backend } from '@q/tensor';
import { afterEach, describe, expect, it } from 'vitest';
import { blocksFor, KvCache, kvBlockSize } from './cache.js';
import { Engine, type EngineOptions } from './engine.js';
import { PastState, perplexityOf, scoreWindows } from './forward.js';
import type { GenerationRequest } from './options.js';

const opened: Backend[] = [];
afterEach(async () => {
  for (const backend of opened.splice(0)) await backend.close();
});

function modelWith(
  rope: Record<string, unknown> = {},
  other: Record<string, unknown> = {},
): { model: CausalLM; backend: Backend } {
  const config = parseModelConfig(
    JSON.stringify({
      architectures: ['LlamaForCausalLM'],
      model_type: 'llama',
      hidden_size: 16,
      intermediate_size: 24,
      num_hidden_layers: 2,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      vocab_size: 50,
      max_position_embeddings: 64,
      rms_norm_eps: 1e-5,
      hidden_act: 'silu',
      tie_word_embeddings: false,
      rope_parameters: { rope_type: 'default', rope_theta: 100, ...rope },
      ...other,
    }),
  );
  const backend = referenceBackend();
  opened.push(backend);
  const model = buildModel(config);
  parameterSlots(model).forEach((slot, seed) => {
    const values = backend.allocate(slot.shape, 'f32').keep();
    fillRandom(values, { kind: 'normal', seed, scale: slot.shape.length === 1 ? 1 : 0.5 });
    if (slot.kind === 'linear') slot.load({ kind: 'dense', shape: slot.shape, values });
    else slot.load(values);
  });
  return { model, backend };
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

const greedy = { doSample: false, temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
const request = (
  ids: readonly number[],
  maxNewTokens: number,
  change: Partial<GenerationRequest> = {},
): GenerationRequest => ({ ids, maxNewTokens, eosTokenIds: [], stopStrings: [], sampling: greedy, ...change });

async function run(
  model: CausalLM,
  backend: Backend,
  requests: readonly GenerationRequest[],
  options: Partial<EngineOptions> = {},
): Promise<number[][]> {
  const engine = new Engine(model, backend, { dtype: 'f32', ...options });
  const tokens: number[][] = requests.map(() => []);
  for await (const { sequence, tokenId } of engine.run(requests)) tokens[sequence].push(tokenId);
  engine.dispose();
  return tokens;
}

/** Greedy tokens one by one, without batches, captured programs or sampling on the device. */
async function stepByStep(model: CausalLM, backend: Backend, ids: readonly number[], count: number): Promise<number[]> {
  using past = new PastState(model, backend, { sequences: 1, maxLength: ids.length + count, dtype: 'f32' });
  const tokens: number[] = [];
  for (let next = [...ids]; tokens.length < count; next = [tokens[tokens.length - 1]]) {
    const logits = backend.scope(() => model.logits(past.forward([next])));
    const row = ((await logits.data()) as Float32Array).subarray(-model.vocabSize);
    tokens.push(row.indexOf(row.reduce((max, value) => Math.max(max, value), -Infinity)));
    logits.dispose();
  }
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
    await expect(run(model, backend, [request([1, 2, 3, 4], 61)])).rejects.toThrow(/do not fit/);
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
