// What is particular to the configs of single decoders: spellings, rules between keys, and what is refused.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { JsonObject } from '@q/config';
import { parseModelConfig } from './registry.js';
import { planTree } from './tree.js';

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
    [{ qk_layernorm: true, head_dim: 32 }, /head_dim is 32 and qk_layernorm is true.*num_attention_heads \(16\)/],
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
    expect(mpt({}, { clip_qkv: 0 })).toMatchObject({ clipQkv: null });
    expect(mpt({}, { clip_qkv: 6 })).toMatchObject({ clipQkv: 6 });
    expect(mpt({}, { remark: 1 }).warnings.map(({ field }) => field)).toEqual(['attn_config.remark']);
  });

  test.each([
    [{}, { alibi: false }, /alibi is false; learned positions are not computed; supported: true/],
    [{}, { clip_qkv: 0.5 }, /clip_qkv is 0.5; must be 0 or at least 1/],
    [{}, { clip_qkv: -6 }, /clip_qkv is -6; must be 0 or at least 1/],
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

describe('deepseek_v3', () => {
  const deepseek = (changes: object) => read('deepseek_v3.config', changes);
  const yarn = json('deepseek_v3.config').rope_parameters as JsonObject;
  const rope = (changes: object) => ({ rope_parameters: { ...yarn, ...changes } });
  // DeepSeek-V3, and Moonlight-16B-A3B, which has no latent of queries and no groups.
  const published = {
    architectures: ['DeepseekV3ForCausalLM'],
    ...{ model_type: 'deepseek_v3', auto_map: {}, aux_loss_alpha: 0.001, ep_size: 1, seq_aux: true, pretraining_tp: 1 },
    ...{ attention_bias: false, attention_dropout: 0, bos_token_id: 0, eos_token_id: 1, vocab_size: 129280 },
    ...{ hidden_act: 'silu', hidden_size: 7168, intermediate_size: 18432, num_hidden_layers: 61 },
    ...{ num_attention_heads: 128, num_key_value_heads: 128, q_lora_rank: 1536, kv_lora_rank: 512 },
    ...{ qk_nope_head_dim: 128, qk_rope_head_dim: 64, v_head_dim: 128, max_position_embeddings: 163840 },
    ...{ n_routed_experts: 256, n_shared_experts: 1, moe_intermediate_size: 2048, first_k_dense_replace: 3 },
    ...{ moe_layer_freq: 1, num_experts_per_tok: 8, n_group: 8, topk_group: 4, norm_topk_prob: true },
    ...{ routed_scaling_factor: 2.5, scoring_func: 'sigmoid', topk_method: 'noaux_tc', num_nextn_predict_layers: 1 },
    ...{ rms_norm_eps: 1e-6, rope_theta: 10000, tie_word_embeddings: false, torch_dtype: 'bfloat16', use_cache: true },
    rope_scaling: {
      ...{ beta_fast: 32, beta_slow: 1, factor: 40, mscale: 1, mscale_all_dim: 1 },
      ...{ original_max_position_embeddings: 4096, type: 'yarn' },
    },
  };
  const moonlight = {
    ...published,
    ...{ hidden_size: 2048, intermediate_size: 11264, moe_intermediate_size: 1408, num_hidden_layers: 27 },
    ...{ num_attention_heads: 16, num_key_value_heads: 16, q_lora_rank: null, first_k_dense_replace: 1 },
    ...{ n_routed_experts: 64, n_shared_experts: 2, num_experts_per_tok: 6, n_group: 1, topk_group: 1 },
    ...{ routed_scaling_factor: 2.446, rope_theta: 50000, rope_scaling: null, max_position_embeddings: 8192 },
    ...{ num_nextn_predict_layers: 0, rms_norm_eps: 1e-5, vocab_size: 163840 },
  };

  test('published files are read without a word', () => {
    const large = parseModelConfig(published);
    expect(large.warnings).toEqual([]);
    expect(large).toMatchObject({ headDim: 192, valueDim: 128, qkNopeHeadDim: 128, qkRopeHeadDim: 64 });
    expect(large).toMatchObject({ sharedExpertSize: 2048, ropeInterleave: true, numKvHeads: 128 });
    const { scoreScale, sparseLayers } = large as unknown as { scoreScale: number; sparseLayers: boolean[] };
    expect(scoreScale).toBeCloseTo(192 ** -0.5 * (0.1 * Math.log(40) + 1) ** 2, 12);
    expect(sparseLayers.slice(0, 4)).toEqual([false, false, false, true]);
    const small = parseModelConfig(moonlight);
    expect(small.warnings).toEqual([]);
    expect(small).toMatchObject({ qLoraRank: null, sharedExpertSize: 2816, scoreScale: 192 ** -0.5 });
    expect(small).toMatchObject({ route: { choices: 6, groups: { count: 1, top: 1 }, scale: 2.446 } });
    const shapes = planTree(small).modules.flatMap(([, , parameters]) => parameters.map(([, shape]) => shape));
    expect(shapes.reduce((sum, shape) => sum + shape.reduce((a, b) => a * b), 0)).toBe(15_960_108_544);
  });

  test('weights in fp8 are refused by name', () => {
    const quantization_config = { activation_scheme: 'dynamic', fmt: 'e4m3', quant_method: 'fp8', weight_block_size: [128, 128] }; // prettier-ignore
    expect(() => parseModelConfig({ ...published, quantization_config })).toThrow(/fine-grained fp8 cannot be loaded/);
  });

  test('null, spellings, and the factor of the scores', () => {
    const nulls = { norm_topk_prob: null, rope_interleave: null, num_key_value_heads: null, q_lora_rank: null };
    expect(deepseek(nulls)).toMatchObject({ route: { normalize: false }, ropeInterleave: false, qLoraRank: null });
    expect(deepseek({ n_routed_experts: undefined, num_local_experts: 8 })).toMatchObject({ numExperts: 8 });
    const magnitude = 0.1 * Math.log(4) + 1;
    for (const [changes, factor] of [
      [{}, magnitude ** 2],
      [{ mscale_all_dim: undefined, mscale: 0.7 }, 1],
      [{ mscale: undefined }, magnitude ** 2],
      [{ attention_factor: 1.3 }, magnitude ** 2],
      [{ rope_type: 'default' }, 1],
      [{ rope_type: 'linear', mscale_all_dim: null }, 1],
    ] as const)
      expect(deepseek(rope(changes))).toMatchObject({ scoreScale: 20 ** -0.5 * factor });
  });

  test.each([
    [{ num_key_value_heads: 2 }, /num_key_value_heads is 2; .*must be num_attention_heads \(4\)/],
    [{ head_dim: 20 }, /qk_rope_head_dim is 8 and head_dim is 20/],
    [{ qk_rope_head_dim: 7, head_dim: undefined }, /qk_rope_head_dim is 7; must be even/],
    [{ q_lora_rank: 0 }, /q_lora_rank is 0/],
    [{ n_shared_experts: 0 }, /n_shared_experts is 0/],
    [{ n_group: 3 }, /n_group is 3; must part n_routed_experts \(8\) into groups of two or more/],
    [{ n_group: 8, topk_group: 8 }, /n_group is 8; must part/],
    [{ topk_group: 5 }, /topk_group is 5; must be at most n_group \(4\)/],
    [{ topk_group: 1 }, /topk_group is 1; so many groups of 2 hold fewer than num_experts_per_tok \(3\)/],
    [{ num_experts_per_tok: 9 }, /num_experts_per_tok is 9; there are 8 experts/],
    [{ num_local_experts: 4 }, /n_routed_experts is 8 and num_local_experts is 4/],
    [{ scoring_func: 'softmax' }, /scoring_func is "softmax"; must be "sigmoid"/],
    [{ topk_method: 'greedy' }, /topk_method is "greedy"; must be "noaux_tc"/],
    [{ moe_layer_freq: 2 }, /moe_layer_freq is 2; must be 1/],
    [{ first_k_dense_replace: -1 }, /first_k_dense_replace is -1/],
    [{ routed_scaling_factor: 0 }, /routed_scaling_factor is 0; must be above 0/],
    [{ partial_rotary_factor: 0.5 }, /this architecture rotates whole heads/],
    [rope({ rope_type: 'linear' }), /mscale_all_dim is set beside rope type linear; only yarn reads it here/],
    [
      { kv_lora_rank: 2 ** 18, num_attention_heads: 2 ** 13, num_key_value_heads: null, v_head_dim: 2 ** 13 },
      /parameters/,
    ],
  ])('%j is refused', (changes, message) => {
    expect(() => deepseek(changes)).toThrow(message);
  });
});
