// What is particular to the configs of decoders of Llama's shape: defaults, rules between keys, and what is refused.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { JsonObject } from '@q/config';
import { parseModelConfig } from './registry.js';

const json = (name: string): JsonObject =>
  JSON.parse(readFileSync(new URL(`../fixtures/configs/${name}.json`, import.meta.url), 'utf8')) as JsonObject;

/** The config of a fixture with changed keys; undefined takes one away. */
const read = (name: string, changes: object) =>
  parseModelConfig(
    Object.fromEntries(Object.entries({ ...json(name), ...changes }).filter(([, value]) => value !== undefined)),
  );

describe('gemma and gemma2', () => {
  test('missing keys have the values of the Python classes', () => {
    const none = { head_dim: undefined, num_key_value_heads: undefined, num_attention_heads: 16 };
    expect(read('gemma.config', { ...none, hidden_act: undefined })).toMatchObject({
      headDim: 256,
      numKvHeads: 16,
      hiddenAct: 'gelu_tanh',
      activationClass: 'GELUTanh',
      tieWordEmbeddings: true,
    });
    const gemma2 = { query_pre_attn_scalar: undefined, layer_types: undefined, sliding_window: undefined };
    const caps = {
      final_logit_softcapping: undefined,
      attn_logit_softcapping: undefined,
      hidden_activation: undefined,
    };
    expect(read('gemma2.config', { ...gemma2, ...caps, num_hidden_layers: 3 })).toMatchObject({
      queryPreAttnScalar: 256,
      slidingWindow: 4096,
      layerTypes: ['sliding_attention', 'full_attention', 'sliding_attention'],
      scoreSoftcap: 50,
      logitSoftcap: 30,
      activationClass: 'GELUTanh',
    });
  });

  test('null is no cap, and published files name an older activation beside the one that counts', () => {
    const published = { hidden_act: 'gelu_pytorch_tanh', final_logit_softcapping: null, attn_logit_softcapping: null };
    expect(read('gemma2.config', published)).toMatchObject({ scoreSoftcap: null, logitSoftcap: null });
  });

  test.each([
    ['gemma.config', { use_bidirectional_attention: true }, /use_bidirectional_attention is true/],
    ['gemma2.config', { use_bidirectional_attention: true }, /use_bidirectional_attention is true/],
    ['gemma2.config', { attn_logit_softcapping: 0 }, /attn_logit_softcapping is 0; must be above 0/],
    ['gemma2.config', { query_pre_attn_scalar: -1 }, /query_pre_attn_scalar is -1; must be above 0/],
    ['gemma2.config', { sliding_window: null }, /layer_types has sliding_attention but there is no sliding_window/],
    ['gemma2.config', { final_logit_softcaping: 2 }, /did you mean final_logit_softcapping/],
  ])('%s: %j is refused', (file, changes, message) => {
    expect(() => read(file, changes)).toThrow(message);
  });
});

describe('granite', () => {
  test('factors that are not there are 1', () => {
    const none = { embedding_multiplier: undefined, attention_multiplier: undefined };
    const more = { residual_multiplier: undefined, logits_scaling: undefined, num_key_value_heads: null };
    expect(read('granite.config', { ...none, ...more })).toMatchObject({
      embeddingMultiplier: 1,
      attentionMultiplier: 1,
      residualMultiplier: 1,
      logitsScaling: 1,
      numKvHeads: 4,
    });
  });

  test('logits are not divided by 0', () => {
    expect(() => read('granite.config', { logits_scaling: 0 })).toThrow(/logits_scaling is 0; must be above 0/);
  });
});

describe('smollm3', () => {
  const smollm3 = (changes: object) => read('smollm3.config', changes);

  test('without a list every fourth layer does not rotate, and with a window those slide', () => {
    const none = { no_rope_layers: undefined, layer_types: undefined };
    expect(smollm3({ ...none, num_hidden_layers: 8 })).toMatchObject({
      rotates: [true, true, true, false, true, true, true, false],
      slidingWindow: null,
    });
    expect(smollm3({ ...none, use_sliding_window: true, sliding_window: 16, no_rope_layer_interval: 2 })).toMatchObject(
      {
        layerTypes: ['full_attention', 'sliding_attention', 'full_attention', 'sliding_attention'],
        slidingWindow: 16,
      },
    );
    expect(smollm3({ rope_parameters: undefined })).toMatchObject({ rope: { theta: 2e6 } });
  });

  test.each([
    [{ no_rope_layers: [1, 0] }, /no_rope_layers has 2 entries; must have one per layer \(4\)/],
    [{ no_rope_layers: [1, 1, 1, 2] }, /no_rope_layers.*must be 0 or 1/],
    [{ no_rope_layers: null, no_rope_layer_interval: 0 }, /no_rope_layer_interval is 0; must be 1 or more/],
  ])('%j is refused', (changes, message) => {
    expect(() => smollm3(changes)).toThrow(message);
  });
});

test('starcoder2: what a file does not say', () => {
  const none = {
    use_bias: undefined,
    sliding_window: undefined,
    norm_epsilon: undefined,
    num_key_value_heads: undefined,
  };
  expect(read('starcoder2.config', none)).toMatchObject({
    bias: true,
    slidingWindow: null,
    layerNormEps: 1e-5,
    numKvHeads: 2,
    activationClass: 'GELUTanh',
  });
});

test('ministral: all layers slide where a file lists none, unless there is no window', () => {
  const types = (changes: object) => read('ministral.config', { layer_types: undefined, ...changes });
  expect(types({})).toMatchObject({ slidingWindow: 6, layerTypes: ['sliding_attention', 'sliding_attention'] });
  expect(types({ sliding_window: undefined })).toMatchObject({ slidingWindow: 4096 });
  expect(types({ sliding_window: null })).toMatchObject({ layerTypes: ['full_attention', 'full_attention'] });
});

describe('phi3', () => {
  const lists = { short_factor: Array(8).fill(1), long_factor: Array(8).fill(2) };

  test('the first files call longrope su or yarn; the trained length is 4096 where none is given', () => {
    for (const type of ['longrope', 'su', 'yarn']) {
      const rope = { rope_scaling: { type, ...lists }, original_max_position_embeddings: undefined };
      expect(read('phi3.config.legacy', { ...rope, max_position_embeddings: 8192 })).toMatchObject({
        rope: { type: 'longrope', factor: 2, originalMaxPositionEmbeddings: 4096 },
      });
    }
  });

  test.each([
    [{ rope_scaling: { type: 'linear', factor: 2 } }, /the rope type is linear; phi3 knows default and longrope/],
    [{ rope_scaling: { type: 'longrope', ...lists, long_factor: [1] } }, /long_factor has 1 entries/],
  ])('%j is refused', (changes, message) => {
    expect(() => read('phi3.config.legacy', changes)).toThrow(message);
  });
});

test('glm4: half of a head is rotated and q, k and v have biases where a file does not say', () => {
  const none = { partial_rotary_factor: undefined, attention_bias: undefined, head_dim: undefined };
  expect(read('glm4.config.legacy', none)).toMatchObject({
    headDim: 128,
    attentionBias: true,
    attentionOutputBias: false,
    rope: { partialRotaryFactor: 0.5 },
  });
});

describe('qwen3 and olmo2', () => {
  test('missing keys have the values of the Python classes', () => {
    expect(read('qwen3.config', { head_dim: undefined, attention_bias: undefined })).toMatchObject({
      headDim: 128,
      attentionBias: false,
    });
    const slides = { use_sliding_window: true, sliding_window: 8, layer_types: undefined, max_window_layers: 1 };
    expect(read('qwen3.config', slides)).toMatchObject({ layerTypes: ['full_attention', 'sliding_attention'] });
    expect(read('olmo2.config', { rms_norm_eps: undefined, num_key_value_heads: null })).toMatchObject({
      rmsNormEps: 1e-5,
      numKvHeads: 4,
    });
  });

  test('a window of 0 that is switched on is refused', () => {
    expect(() => read('qwen3.config', { use_sliding_window: true, sliding_window: 0 })).toThrow(/sliding_window is 0/);
  });
});

describe('ministral3', () => {
  test('reads its rotary settings, and is written back byte for byte', () => {
    const text = readFileSync(new URL('../fixtures/configs/ministral3.config.json', import.meta.url), 'utf8');
    expect(parseModelConfig(text).toText()).toBe(text);
    expect(parseModelConfig(text).warnings).toEqual([]);
    expect(read('ministral3.config', {})).toMatchObject({
      rope: { type: 'yarn', factor: 4 },
      queryScaling: { beta: 0.3, length: 8 },
    });
  });

  test('a file without rotary settings has those of the Python class', () => {
    expect(read('ministral3.config', { rope_parameters: undefined, head_dim: undefined })).toMatchObject({
      headDim: 128,
      rope: { type: 'yarn', theta: 1e6, factor: 16, originalMaxPositionEmbeddings: 16384 },
      queryScaling: { beta: 0.1, length: 16384 },
    });
  });

  test.each([
    [{ rope_parameters: { rope_type: 'default' } }, /rope llama_4_scaling_beta/],
    [{ rope_scaling: { type: 'linear', factor: 2 } }, /there is a rope_scaling/],
  ])('%j is refused', (changes, message) => {
    expect(() => read('ministral3.config', changes)).toThrow(message);
  });
});
