// Broken numbers: never a token, always an error that says where.
import { NumericsError } from '@q/config';
import type { Tensor } from '@q/tensor';
import { describe, expect, it } from 'vitest';
import { Engine } from './engine.js';
import { scoreWindows } from './score.js';
import type { SamplingOptions } from './options.js';
import { backendOf, collect, greedy, llamaText, randomModel, request } from './testing.js';

/** Puts a value into one element of a weight. */
const damage = (of: string, value: number) => (name: string, values: Tensor) => {
  if (name === of) values.backend.assign(values.slice(1, 2), Array<number>(values.count / values.dim(0)).fill(value));
};

function engineWith(change?: (name: string, values: Tensor) => void, checkFinite = false): Engine {
  const backend = backendOf(undefined, { checkFinite });
  return new Engine(randomModel(backend, llamaText(), change), backend, { dtype: 'f32' });
}

const sampled: SamplingOptions = { ...greedy, doSample: true, seed: 5 };
const penalised: SamplingOptions = { ...greedy, repetitionPenalty: 1.3 };

describe.each([
  ['NaN in the head', damage('lm_head.weight', Number.NaN)],
  ['infinity in a down projection', damage('model.layers.1.mlp.down_proj.weight', Infinity)],
  ['minus infinity in a norm', damage('model.norm.weight', -Infinity)],
])('%s', (_, change) => {
  it.each([
    ['greedy', greedy],
    ['sampling', sampled],
    ['with a repetition penalty', penalised],
  ])('%s', async (__, sampling) => {
    const engine = engineWith(change);
    const run = collect(engine.submit([request([1, 2], 5, { sampling }), request([3], 5, { sampling })]));
    await expect(run).rejects.toThrow(NumericsError);
    await expect(run).rejects.toThrow(/logits of step 0 of sequence 0 are not finite/);
    await engine.dispose();
  });

  it('score', async () => {
    const { model, backend } = engineWith(change);
    const run = scoreWindows(model, backend, [[1, 2, 3]], { dtype: 'f32' });
    await expect(run).rejects.toThrow(NumericsError);
    await expect(run).rejects.toThrow(/window 0/);
  });
});

it('names the step at which the numbers break, after the tokens before it', async () => {
  const [whole] = await collect(engineWith().submit([request([1, 2], 20)]));
  const at = whole.findIndex((id, i) => i > 2 && !whole.slice(0, i).includes(id) && ![1, 2].includes(id));
  expect(at).toBeGreaterThan(2);
  const engine = engineWith((name, values) => {
    if (name === 'model.embed_tokens.weight')
      values.backend.assign(values.slice(whole[at], whole[at] + 1), Array<number>(values.dim(1)).fill(Number.NaN));
  });
  const seen: number[] = [];
  const read = async () => {
    for await (const { tokenId } of engine.submit([request([1, 2], 20)])) seen.push(tokenId);
  };
  await expect(read()).rejects.toThrow(`step ${at + 1} of sequence 0`);
  expect(seen).toEqual(whole.slice(0, at + 1));
  expect((await collect(engine.submit([request([1, 2], at)])))[0]).toEqual(whole.slice(0, at));
  await engine.dispose();
});

describe('checkFinite', () => {
  it.each([
    ['model.embed_tokens.weight', /model\.embed_tokens gives/],
    ['model.layers.0.self_attn.v_proj.weight', /model\.layers\.0 gives/],
    ['model.layers.1.mlp.down_proj.weight', /model\.layers\.1 gives/],
    ['model.norm.weight', /model\.norm gives/],
    ['lm_head.weight', /lm_head gives/],
  ])('names the first layer: %s', async (name, message) => {
    for (const value of [Number.NaN, Infinity, -Infinity]) {
      const engine = engineWith(damage(name, value), true);
      const run = collect(engine.submit([request([1, 4], 3)]));
      await expect(run).rejects.toThrow(NumericsError);
      await expect(run).rejects.toThrow(message);
      const { model, backend } = engine;
      await expect(scoreWindows(model, backend, [[1, 2, 1]], { dtype: 'f32' })).rejects.toThrow(message);
      await engine.dispose();
    }
  });

  it('changes no token, and leaves nothing behind', async () => {
    const requests = [request([1, 2], 9), request([3], 7, { sampling: sampled })];
    const engine = engineWith(undefined, true);
    expect(await collect(engine.submit(requests))).toEqual(await collect(engineWith().submit(requests)));
    await engine.dispose();
    engine.model.dispose();
    expect(engine.backend.memory().usedBytes).toBe(0);
  });
});

it('takes the likeliest token at temperatures too small to divide by', async () => {
  const engine = engineWith();
  const expected = await collect(engine.submit([request([1, 2], 12)]));
  for (const temperature of [1e-6, 1e-9, 1e-38, 1e-45, 5e-324])
    expect(await collect(engine.submit([request([1, 2], 12, { sampling: { ...sampled, temperature } })]))).toEqual(
      expected,
    );
  await engine.dispose();
});

it('takes any token at temperatures that float32 cannot hold, as at the largest that it can', async () => {
  const engine = engineWith();
  const tokens = (temperature: number) =>
    collect(engine.submit([request([1, 2], 12, { sampling: { ...sampled, temperature } })]));
  const flat = await tokens(1e30);
  for (const temperature of [3.4e38, 3.5e38, 1e39, Number.MAX_VALUE]) expect(await tokens(temperature)).toEqual(flat);
  expect(flat).not.toEqual(await collect(engine.submit([request([1, 2], 12)])));
  await engine.dispose();
});
