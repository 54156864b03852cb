import { readFileSync } from 'node:fs';
import { ConfigError } from '@q/config';
import { describe, expect, it } from 'vitest';
import { distanceBuckets } from './nn/relative-bias.js';
import { buildModel, parseModelConfig, taskOf, tasksOf, tiesOf } from './registry.js';
import { parameterSlots } from './slots.js';
import type { T5Settings } from './shared/t5-config.js';
import { planTree } from './tree.js';

const parse = (changes: object = {}) => {
  const config = parseModelConfig({ model_type: 't5', d_model: 64, d_kv: 16, d_ff: 96, num_heads: 4, ...changes });
  return config as typeof config & T5Settings;
};

describe('config.json', () => {
  it('has the defaults of the Python class', () => {
    const config = parseModelConfig({ model_type: 't5' }) as ReturnType<typeof parse>;
    expect(config).toMatchObject({
      vocabSize: 32128,
      hiddenSize: 512,
      intermediateSize: 2048,
      numLayers: 6,
      numDecoderLayers: 6,
      numHeads: 8,
      headDim: 64,
      relativeAttentionNumBuckets: 32,
      relativeAttentionMaxDistance: 128,
      rmsNormEps: 1e-6,
      hiddenAct: 'relu',
      gated: false,
      tieWordEmbeddings: true,
      scaleDecoderOutputs: true,
      encoderOnly: false,
      decoderStartTokenId: null,
      tokenIds: { bos: [], eos: [1], pad: 0 },
    });
    expect(config.warnings.map(({ field }) => field)).toContain('d_model');
  });

  it.each([
    [{ feed_forward_proj: 'relu' }, 'relu', false],
    [{ feed_forward_proj: 'gelu' }, 'gelu', false],
    [{ feed_forward_proj: 'gated-gelu' }, 'gelu_tanh', true],
    [{ feed_forward_proj: 'gated-silu' }, 'silu', true],
    [{ feed_forward_proj: 'gated-gelu', dense_act_fn: 'gelu_new', is_gated_act: true }, 'gelu_tanh', true],
    [{ feed_forward_proj: 'gated-gelu', dense_act_fn: 'gelu' }, 'gelu', true],
    [{ feed_forward_proj: 'relu', dense_act_fn: 'silu', is_gated_act: true }, 'silu', true],
  ])('%j', (keys, hiddenAct, gated) => {
    expect(parse(keys)).toMatchObject({ hiddenAct, gated });
  });

  it.each([
    [{}, true],
    [{ tie_word_embeddings: true }, true],
    [{ tie_word_embeddings: false }, false],
    [{ tie_word_embeddings: true, scale_decoder_outputs: false }, false],
    [{ tie_word_embeddings: false, scale_decoder_outputs: true }, true],
  ])('%j: the output is scaled: %s', (keys, scaled) => {
    expect(parse(keys).scaleDecoderOutputs).toBe(scaled);
  });

  it('keeps the scale when the weights turn out not to be tied', () => {
    const saved = (keys: object) => JSON.parse(parse(keys).toText({ tieWordEmbeddings: false })) as object;
    expect(saved({})).toMatchObject({ tie_word_embeddings: false, scale_decoder_outputs: true });
    expect(saved({ scale_decoder_outputs: false })).toMatchObject({ scale_decoder_outputs: false });
  });

  it.each([
    [{ feed_forward_proj: 'gated-gated-gelu' }, /feed_forward_proj is "gated-gated-gelu"/],
    [{ feed_forward_proj: 'gated-' }, /feed_forward_proj/],
    [{ feed_forward_proj: 'squash' }, /feed_forward_proj is "squash".*must be one of/],
    [{ dense_act_fn: 'squash' }, /dense_act_fn is "squash"/],
    [{ relative_attention_num_buckets: 3 }, /relative_attention_num_buckets is 3/],
    [{ relative_attention_num_buckets: 256 }, /relative_attention_max_distance is 128.*more than half/],
    [{ relative_attention_max_distance: 1e9 }, /relative_attention_max_distance/],
    [{ d_ff: 2 ** 20, d_model: 2 ** 18, num_layers: 1000 }, /parameters/],
    [{ num_decoder_layers: 0 }, /num_decoder_layers/],
    [{ num_layers: 5001, num_decoder_layers: 5000 }, /the stacks have 10001 layers.*at most 10000/],
  ])('%j is refused', (keys, message) => {
    expect(() => parse(keys)).toThrow(ConfigError);
    expect(() => parse(keys)).toThrow(message);
  });

  it.each([{ is_encoder_decoder: false }, { architectures: ['T5EncoderModel'] }])('%j is an encoder', (keys) => {
    expect(buildModel(parse(keys), 'base').className).toBe('T5EncoderModel');
    expect([taskOf(parse(keys)), tasksOf(parse(keys))]).toEqual(['base', ['base']]);
    expect(() => buildModel(parse(keys), 'seq2seqLM')).toThrow(/t5 has no seq2seqLM model.*it has base/);
    expect(buildModel(parse(), 'base').className).toBe('T5Model');
    expect([taskOf(parse()), tasksOf(parse())]).toEqual(['seq2seqLM', ['seq2seqLM', 'base']]);
  });
});

it('falls into buckets as transformers has it, as far as the last one reaches', () => {
  const path = new URL('../fixtures/distance-buckets.json', import.meta.url);
  const cases = JSON.parse(readFileSync(path, 'utf8')) as [number, number, boolean, [number, number][]][];
  for (const [buckets, maxDistance, bidirectional, runs] of cases) {
    const expected = runs.flatMap(([bucket, count]) => Array.from({ length: count }, () => bucket));
    expect([...distanceBuckets({ buckets, maxDistance, bidirectional })]).toEqual(expected);
  }
});

describe('tied weights', () => {
  const stacks = { 'encoder.embed_tokens.weight': 'shared.weight', 'decoder.embed_tokens.weight': 'shared.weight' };

  it('both stacks use one table whatever the config says, the head when it is tied', () => {
    expect(tiesOf(parse())).toEqual({ 'lm_head.weight': 'shared.weight', ...stacks });
    expect(tiesOf(parse({ tie_word_embeddings: false }))).toEqual(stacks);
    const slots = parameterSlots(buildModel(parse(), 'seq2seqLM'), tiesOf(parse()));
    expect(slots[0].name).toBe('shared.weight');
    expect(slots.filter(({ tiedTo }) => tiedTo === 'shared.weight')).toHaveLength(3);
  });

  it('are one group for planners, of the names that the model has', () => {
    expect(planTree(parse())).toMatchObject({
      tied: [['decoder.embed_tokens.weight', 'encoder.embed_tokens.weight', 'lm_head.weight', 'shared.weight']],
      keepInFp32: ['wo'],
      noSplit: ['T5Block'],
    });
    expect(planTree(parse({ is_encoder_decoder: false }), 'base').tied).toEqual([
      ['encoder.embed_tokens.weight', 'shared.weight'],
    ]);
  });
});
