// What is particular to the configs of single decoders: spellings, rules between keys, and what is refused.
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

describe('gptj', () => {
  const gptj = (changes: object) => read('gptj.config', changes);

  test('the usual spellings stand for its own, and what published files have beside them is read over', () => {
    const usual = { n_embd: undefined, hidden_size: 64, n_positions: undefined, max_position_embeddings: 32 };
    expect(gptj(usual)).toMatchObject({ hiddenSize: 64, maxPositionEmbeddings: 32, headDim: 16 });
    expect(gptj({ n_inner: null })).toMatchObject({ intermediateSize: 256 });
    const published = { rotary: true, scale_attn_weights: true, summary_type: 'cls_index', n_ctx: 64 };
    expect(gptj(published).warnings.map(({ field }) => field)).toEqual(['rotary', 'scale_attn_weights']);
  });

  test.each([
    [{ hidden_size: 32 }, /n_embd is 64 and hidden_size is 32/],
    [{ rotary_dim: 7 }, /rotary_dim is 7; must be even, and at most the 16 elements of a head/],
    [{ rotary_dim: 18 }, /rotary_dim is 18/],
    [{ n_head: 5 }, /n_head is 5; must divide n_embd \(64\)/],
    [{ rotary: false }, /unknown key rotary/],
    [{ rope_scaling: { type: 'linear', factor: 2 } }, /unknown key rope_scaling/],
    [{ n_inner: 0 }, /n_inner is 0/],
  ])('%j is refused', (changes, message) => {
    expect(() => gptj(changes)).toThrow(message);
  });
});

describe('phi', () => {
  const phi = (changes: object, file = 'phi.config.legacy') => read(file, changes);

  test('half of a head is rotated where the file does not say; heads may be of another size', () => {
    const none = { partial_rotary_factor: undefined, num_key_value_heads: undefined };
    expect(phi(none)).toMatchObject({ rope: { partialRotaryFactor: 0.5 }, numKvHeads: 4 });
    expect(phi({ partial_rotary_factor: 0.25, head_dim: 32 })).toMatchObject({
      headDim: 32,
      rope: { partialRotaryFactor: 0.25 },
    });
    expect(phi({ rope_parameters: { rope_type: 'default' }, partial_rotary_factor: undefined }, 'phi.config')).toEqual(
      expect.objectContaining({ rope: { type: 'default', theta: 10000, partialRotaryFactor: 0.5 } }),
    );
  });

  test.each([
    [{ qk_layernorm: true }, /qk_layernorm is true/],
    [{ num_key_value_heads: 3 }, /num_key_value_heads is 3; must divide num_attention_heads \(4\)/],
    [{ partial_rotary_factor: 0.2 }, /partial_rotary_factor is 0.2.*must be an even number/],
    [{ qk_layernrm: true }, /did you mean qk_layernorm/],
  ])('%j is refused', (changes, message) => {
    expect(() => phi(changes)).toThrow(message);
  });
});

describe('stablelm', () => {
  const stablelm = (changes: object) => read('stablelm.config.legacy', changes);

  test('a quarter of a head is rotated where the file does not say; the share has an older name', () => {
    const none = { partial_rotary_factor: undefined, num_key_value_heads: 4 };
    expect(stablelm(none)).toMatchObject({ rope: { partialRotaryFactor: 0.25 } });
    expect(stablelm({ ...none, rope_pct: 0.5 })).toMatchObject({ rope: { partialRotaryFactor: 0.5 } });
    expect(stablelm({ rope_pct: 0.25 }).warnings).toEqual([]);
    expect(stablelm({ use_parallel_residual: true })).toMatchObject({ parallelResidual: true, qkvBias: true });
  });

  test.each([
    [{ rope_pct: 0.5 }, /rope_pct is 0.5 and partial_rotary_factor is 0.25/],
    [{ qk_layernorm: 'yes' }, /qk_layernorm is "yes"; must be true or false/],
    [{ num_key_value_heads: undefined }, /num_key_value_heads is 32; must divide/],
  ])('%j is refused', (changes, message) => {
    expect(() => stablelm(changes)).toThrow(message);
  });
});

describe('cohere and cohere2', () => {
  test('defaults of the classes: the base of the rotation, the scale of the logits', () => {
    const none = { rope_theta: undefined, logit_scale: undefined };
    const first = read('cohere.config.legacy', none);
    expect(first).toMatchObject({ rope: { theta: 500000 }, logitScale: 0.0625, tieWordEmbeddings: true });
    expect(read('cohere2.config.legacy', none)).toMatchObject({ rope: { theta: 10000 }, logitScale: 0.0625 });
  });

  test('layers of cohere2: listed, or every fourth one without window and positions', () => {
    const sliding = { rotated: true, window: 6 };
    const full = { rotated: false, window: 0 };
    const cohere2 = (changes: object) => read('cohere2.config.legacy', changes);
    expect(cohere2({})).toMatchObject({ layerKinds: [sliding, sliding, sliding, full] });
    expect(cohere2({ sliding_window_pattern: 2 })).toMatchObject({ layerKinds: [sliding, full, sliding, full] });
    const listed = ['full_attention', 'sliding_attention', 'full_attention', 'full_attention'];
    expect(cohere2({ layer_types: listed })).toMatchObject({ layerKinds: [full, sliding, full, full] });
    const published = { position_embedding_type: 'rope_gptj', rotary_pct: 1, use_qk_norm: false, layer_switch: 4 };
    expect(cohere2(published)).toMatchObject({ headDim: 16 });
  });

  test.each([
    ['cohere', { partial_rotary_factor: 0.5 }, /partial_rotary_factor is 0.5; this architecture rotates whole heads/],
    ['cohere', { logit_scale: 0 }, /logit_scale is 0; must be above 0/],
    ['cohere', { sliding_window: 8 }, /unknown key sliding_window/],
    ['cohere2', { head_dim: 32 }, /head_dim is 32; must be hidden_size \/ num_attention_heads \(16\)/],
    ['cohere2', { sliding_window: null }, /sliding_attention but there is no sliding_window/],
    ['cohere2', { use_qk_norm: true }, /unknown key use_qk_norm/],
    ['cohere2', { layer_types: ['full_attention'] }, /layer_types has 1 entries/],
  ])('%s: %j is refused', (name, changes, message) => {
    expect(() => read(`${name}.config.legacy`, changes)).toThrow(message);
  });
});

describe('gpt_bigcode', () => {
  const bigcode = (changes: object) => read('gpt_bigcode.config', changes);

  test('keys of published files, and how keys and values are shared', () => {
    const published = { inference_runner: 0, pad_key_length: true, pre_allocate_kv_cache: false, summary_type: 'x' };
    expect(bigcode(published).warnings).toEqual([]);
    expect(bigcode({ multi_query: undefined, num_key_value_heads: 4 })).toMatchObject({ multiQuery: true });
    expect(bigcode({ scale_attn_weights: false, activation_function: 'gelu_new' })).toMatchObject({
      scaleScores: false,
      activation: 'gelu_tanh',
      activationClass: 'NewGELUActivation',
    });
  });

  test.each([
    [{ add_cross_attention: true }, /add_cross_attention is true/],
    [{ activation_function: 'mish' }, /activation_function is "mish"/],
    [{ multi_qery: false }, /did you mean multi_query/],
  ])('%j is refused', (changes, message) => {
    expect(() => bigcode(changes)).toThrow(message);
  });
});

describe('xglm', () => {
  const xglm = (changes: object) => read('xglm.config', changes);

  test('the usual spellings, and the row of zeros', () => {
    expect(xglm({ d_model: undefined, hidden_size: 32 })).toMatchObject({ hiddenSize: 32, headDim: 8 });
    expect(xglm({ pad_token_id: undefined })).toMatchObject({ paddingRow: 1 });
    expect(xglm({ pad_token_id: null })).toMatchObject({ paddingRow: null });
  });

  test.each([
    [{ num_hidden_layers: 3 }, /num_layers is 2 and num_hidden_layers is 3/],
    [{ d_model: 2, attention_heads: 1 }, /d_model is 2; must be even for sines and cosines, 4 or more/],
    [{ d_model: 33, attention_heads: 3 }, /d_model is 33/],
    [{ pad_token_id: 130 }, /pad_token_id is 130; the table of positions has 130 rows/],
    [{ add_cross_attention: true }, /add_cross_attention is true/],
  ])('%j is refused', (changes, message) => {
    expect(() => xglm(changes)).toThrow(message);
  });
});

describe('falcon', () => {
  const falcon = (changes: object, name = 'falcon-new') => read(`${name}.config`, changes);

  test('its three kinds: heads of keys and values, their layout, norms, positions', () => {
    expect(falcon({}, 'falcon-7b')).toMatchObject({ numKvHeads: 1, interleaved: false, parallelNorms: 1 });
    expect(falcon({})).toMatchObject({ numKvHeads: 2, interleaved: true, parallelNorms: 2, alibi: false });
    expect(falcon({ num_ln_in_parallel_attn: null })).toMatchObject({ parallelNorms: 2 });
    expect(falcon({ num_ln_in_parallel_attn: 1 })).toMatchObject({ parallelNorms: 1 });
    const rw = { numKvHeads: 4, interleaved: true, parallelNorms: 0, alibi: true, bias: true };
    expect(falcon({}, 'falcon-rw')).toMatchObject(rw);
  });

  test('older spellings and defaults', () => {
    expect(falcon({ n_embed: 32 })).toMatchObject({ hiddenSize: 32, headDim: 8 });
    expect(falcon({ ffn_hidden_size: undefined, num_kv_heads: undefined })).toMatchObject({
      intermediateSize: 256,
      numKvHeads: 4,
    });
  });

  test.each([
    ['falcon-new', { num_kv_heads: 3 }, /num_kv_heads is 3; must divide num_attention_heads \(4\)/],
    ['falcon-new', { parallel_attn: false }, /parallel_attn is false; must be true with new_decoder_architecture/],
    ['falcon-new', { num_ln_in_parallel_attn: 3 }, /num_ln_in_parallel_attn is 3; must be 1 or 2/],
    ['falcon-7b', { num_ln_in_parallel_attn: 2 }, /must be 1 without new_decoder_architecture/],
    ['falcon-rw', { num_kv_heads: 2 }, /num_kv_heads is 2 and num_attention_heads 4/],
    ['falcon-7b', { apply_residual_connection_post_layernorm: true }, /unknown key apply_residual/],
    ['falcon-7b', { partial_rotary_factor: 0.5 }, /this architecture rotates whole heads/],
  ])('%s: %j is refused', (name, changes, message) => {
    expect(() => falcon(changes, name)).toThrow(message);
  });
});

describe('mpt', () => {
  const own = json('mpt.config').attn_config as JsonObject;
  const mpt = (changes: object, attention: object = {}) =>
    read('mpt.config', { attn_config: { ...own, ...attention }, ...changes });

  test('settings of attention, and the usual spellings', () => {
    expect(mpt({}, { alibi_bias_max: 16, softmax_scale: 0.5 })).toMatchObject({ alibiBiasMax: 16, softmaxScale: 0.5 });
    expect(mpt({ attn_config: undefined })).toMatchObject({ alibiBiasMax: 8, softmaxScale: null });
    expect(mpt({ d_model: undefined, hidden_size: 32, expansion_ratio: 2 })).toMatchObject({ intermediateSize: 64 });
    expect(mpt({ norm_type: 'layernorm' }, { attn_impl: 'triton', clip_qkv: 0 }).warnings).toEqual([]);
    expect(mpt({}, { remark: 1 }).warnings.map(({ field }) => field)).toEqual(['attn_config.remark']);
  });

  test.each([
    [{}, { alibi: false }, /alibi is false; learned positions are not computed; supported: true/],
    [{}, { clip_qkv: 6 }, /clip_qkv is 6; queries, keys and values are not clipped/],
    [{}, { qk_ln: true }, /qk_ln is true/],
    [{}, { prefix_lm: true }, /prefix_lm is true/],
    [{}, { attn_type: 'multiquery_attention' }, /attn_type is "multiquery_attention"/],
    [{}, { attn_uses_sequence_id: true }, /attn_uses_sequence_id is true/],
    [{}, { rope: true }, /rope is true; rotations are not computed/],
    [{}, { sliding_window_size: 8 }, /unknown key attn_config.sliding_window_size .*"attn_config.sliding_window_size"/],
    [{}, { alibi_bias_mx: 4 }, /did you mean alibi_bias_max/],
    [{}, { softmax_scale: 0 }, /softmax_scale.* is 0; must be above 0/],
    [{ no_bias: false }, {}, /no_bias is false/],
    [{ norm_type: 'rmsnorm' }, {}, /norm_type is "rmsnorm"/],
    [{ logit_scale: 'inv_sqrt_d_model' }, {}, /logit_scale is "inv_sqrt_d_model"/],
    [{ attn_config: 3 }, {}, /attn_config is 3; must be an object/],
    [{ n_heads: 5 }, {}, /n_heads is 5; must divide d_model/],
  ])('%j %j is refused', (changes, attention, message) => {
    expect(() => mpt(changes, attention)).toThrow(message);
  });
});
