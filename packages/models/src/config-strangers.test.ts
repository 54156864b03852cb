import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  ConfigError,
  maxContext,
  MAX_JSON_DEPTH,
  MAX_POSITIONS,
  parseConfigText,
  QError,
  UnsupportedError,
} from '@q/config';
import { parseModelConfig, type ModelConfig } from './registry.js';
import type { DecoderConfig } from './shared/decoder-config.js';

const root = fileURLToPath(new URL('../fixtures/', import.meta.url));
const base = (name: string): Record<string, unknown> =>
  JSON.parse(readFileSync(`${root}configs/${name}.config.legacy.json`, 'utf8')) as Record<string, unknown>;
const read = (changes: object, name = 'llama', ignoreConfigKeys: string[] = []) => {
  const merged = Object.entries({ ...base(name), ...changes }).filter(([, value]) => value !== undefined);
  return parseModelConfig(Object.fromEntries(merged), { ignoreConfigKeys }) as ModelConfig & DecoderConfig;
};
const fields = (changes: object, name = 'llama') => read(changes, name).warnings.map(({ field }) => field);

test.each([
  ['an unknown option', { ignoreConfigKey: ['a'] }, /unknown option ignoreConfigKey; did you mean ignoreConfigKeys/],
  ['options that are none', null, /options must be an object/],
])('%s', (_, options, message) => {
  expect(() => parseModelConfig(base('llama'), options as never)).toThrow(ConfigError);
  expect(() => parseModelConfig(base('llama'), options as never)).toThrow(message);
});

describe('unknown keys', () => {
  test.each([
    { attention_dropout: 0.1, embd_pdrop: 0, ffn_dropout_rate: 0.2, drop_path: 0 },
    { embedding_init_std: 0.1, image_token_index: 32000, cls_token_id: 3, mask_token: '<m>' },
    { _flash_attn_2_enabled: true, logit_scale: null, whatever: null, use_mrope: false },
  ])('%j: nothing to say', (changes) => {
    expect(read(changes).warnings).toEqual([]);
  });

  test.each([
    { badwords: [[0]], use_flash_attn: true, fp16: false, seq_length: 4096, n_layers: 2, architecture_notes: { a: 1 } },
    { max_grad_norm: 1, loss_scale: 128, lora_alpha: 16, neftune_noise_alpha: 5 },
    { qkv_bias: false, use_qk_norm: false, num_experts: 0, num_local_experts: 1, logits_scaling: 1, clip_qkv: 0 },
    { norm_type: 'rmsnorm', layer_norm_eps: 1e-5, use_rms_norm: true, rotary_emb_base: 10000, use_rope: true },
    { use_sliding_window: false, sliding_window: 32, max_window_layers: 28, position_embedding_type: 'rope' },
    { activation_function: 'silu', mlp_activation: 'swiglu', is_causal: true, query_pre_attn_scalar: 16 },
    { layer_types: ['full_attention', 'full_attention'], rotary_dim: 16, no_bias: true, sliding_window: 1e6 },
    { dual_chunk_attention_config: { chunk_size: 8 }, vision_config: { hidden_size: 4 } },
  ])('%j: a line for each', (changes) => {
    expect(fields(changes).sort()).toEqual(Object.keys(changes).sort());
    expect(read(changes).toJSON()).toMatchObject(changes);
  });

  test.each([
    ['attn_scale', 0.5],
    ['embedding_multiplier', 12],
    ['scale_emb', 12],
    ['use_mup', true],
    ['final_logit_softcapping', 30],
    ['logits_soft_cap', 30],
    ['clip_qkv', 8],
    ['qk_layernorm', true],
    ['use_qk_norm', true],
    ['norm_type', 'layernorm'],
    ['num_experts', 8],
    ['num_local_experts', 4],
    ['kv_lora_rank', 512],
    ['qk_rope_head_dim', 64],
    ['rotary_pct', 0.25],
    ['rotary_dim', 8],
    ['rotary_emb_base', 1e6],
    ['alibi', true],
    ['use_rope', false],
    ['no_rope_layers', [1, 0]],
    ['position_embedding_type', 'alibi'],
    ['use_logn_attn', true],
    ['use_dynamic_ntk', true],
    ['qkv_bias', true],
    ['use_bias', true],
    ['lm_head_bias', true],
    ['sliding_window', 32],
    ['sliding_window_pattern', 6],
    ['attention_chunk_size', 64],
    ['layer_types', ['full_attention', 'linear_attention']],
    ['is_causal', false],
    ['use_parallel_residual', true],
    ['num_kv_shared_layers', 1],
    ['hidden_activation', 'gelu'],
    ['attn_temperature_tuning', true],
    ['attention_sinks', true],
    ['query_pre_attn_scalar', 144],
  ])('%s %j changes the maths', (key, value) => {
    expect(() => read({ [key]: value })).toThrow(ConfigError);
    expect(() => read({ [key]: value })).toThrow(`unknown key ${key}`);
    expect(() => read({ [key]: value })).toThrow(`pass "${key}" in ignoreConfigKeys`);
    expect(read({ [key]: value }, 'llama', [key]).warnings).toMatchObject([{ code: 'ignored', field: key }]);
  });

  test('what the architecture does anyway is no contradiction', () => {
    expect(fields({ attention_bias: true, add_qkv_bias: true }, 'qwen2')).toEqual(['attention_bias', 'add_qkv_bias']);
    expect(() => read({ attention_bias: true }, 'mistral')).toThrow(/unknown key attention_bias/);
    expect(fields({ attention_bias: false, mlp_bias: false }, 'mistral')).toEqual(['attention_bias', 'mlp_bias']);
  });

  test('ignoreConfigKeys reaches into objects, takes known keys out, and says what it did not find', () => {
    const rope_scaling = { type: 'dynamic', factor: 2, alpha: 3 };
    const config = read({ rope_scaling }, 'llama', ['rope_scaling.alpha', 'rope_scaling.beta', 'a.b']);
    expect(config.rope).toMatchObject({ type: 'dynamic', factor: 2 });
    expect(config.toJSON().rope_scaling).toEqual(rope_scaling);
    expect(config.warnings.map(({ message }) => message)).toEqual([
      '[config.json (llama)] rope_scaling.alpha is ignored, as ignoreConfigKeys says',
      '[config.json (llama)] ignoreConfigKeys names rope_scaling.beta, which the file does not have',
      '[config.json (llama)] ignoreConfigKeys names a.b, which the file does not have',
    ]);
    expect(read({ rope_scaling }, 'llama', ['rope_scaling']).rope.type).toBe('default');
    expect(read({ 'a.gate_scale': 2 }, 'llama', ['a.gate_scale']).warnings).toHaveLength(1);
    expect(read({ rope_interleaved: true }, 'llama', ['rope_interleaved']).warnings).toHaveLength(1);
  });

  test('rope settings: keys that the type does not use', () => {
    const rope_scaling = { type: 'yarn', factor: 4, original_max_position_embeddings: 32 };
    const plain = read({ rope_scaling }).rope;
    const extra = { finetuned: true, low_freq_factor: 1, extrapolation_factor: 1, note: 'x', unused: null };
    const config = read({ rope_scaling: { ...rope_scaling, ...extra } });
    expect(config.rope).toEqual(plain);
    expect(config.warnings.map(({ field }) => field)).toEqual([
      'rope_scaling.finetuned',
      'rope_scaling.low_freq_factor',
      'rope_scaling.extrapolation_factor',
      'rope_scaling.note',
    ]);
    expect(fields({ rope_scaling: { rope_type: 'default', type: 'default', mrope_section: [2, 3, 3] } })).toHaveLength(
      1,
    );
  });
});

describe('defaults of the Python classes', () => {
  test('every size may be missing, with a line', () => {
    const sizes = { bos: [1], eos: [2] };
    const bare = (model_type: string) => parseModelConfig({ model_type });
    expect(bare('llama')).toMatchObject({
      ...{ vocabSize: 32000, hiddenSize: 4096, intermediateSize: 11008, numLayers: 32, numHeads: 32, numKvHeads: 32 },
      ...{ maxPositionEmbeddings: 2048, rmsNormEps: 1e-6, hiddenAct: 'silu', headDim: 128, tokenIds: sizes },
    });
    expect(bare('mistral')).toMatchObject({
      ...{ vocabSize: 32000, intermediateSize: 14336, numKvHeads: 8, maxPositionEmbeddings: 131072, tokenIds: sizes },
      slidingWindow: 4096,
    });
    expect(bare('qwen2')).toMatchObject({
      ...{ vocabSize: 151936, intermediateSize: 22016, numKvHeads: 32, maxPositionEmbeddings: 32768 },
      tokenIds: { bos: [], eos: [] },
    });
    expect(bare('llama').warnings.map(({ message }) => message)).toContain(
      '[config.json (llama)] hidden_size is missing; 4096 is taken, the default of the Python class',
    );
    expect(read({ eos_token_id: null, bos_token_id: undefined }).tokenIds).toMatchObject({ bos: [1], eos: [] });
  });

  test('null is the default where null has no meaning of its own', () => {
    expect(
      read({ attention_bias: null, tie_word_embeddings: null, rope_theta: null, rope_scaling: null }),
    ).toMatchObject({
      attentionBias: false,
      tieWordEmbeddings: false,
      rope: { theta: 10000 },
    });
    expect(read({ sliding_window: null, num_key_value_heads: null }, 'mistral')).toMatchObject({
      slidingWindow: null,
      numKvHeads: 4,
    });
  });
});

describe('weights of other programs', () => {
  test.each([
    [{ quantization: { group_size: 64, bits: 4 } }, 'MLX'],
    [{ quantization: { group_size: 32, bits: 8, 'model.layers.0.mlp': { group_size: 64, bits: 4 } } }, 'MLX'],
    [{ quantization_config: { group_size: 64, bits: 4 } }, 'MLX'],
    [{ quantization_config: { w_bit: 4, q_group_size: 128, zero_point: true, version: 'GEMM' } }, 'AWQ'],
    [{ quantization_config: { quant_method: 'awq', bits: 4 } }, 'AWQ'],
    [{ quantization_config: { quant_method: 'compressed-tensors', config_groups: {} } }, 'compressed-tensors'],
    [{ compression_config: { format: 'int-quantized' } }, 'compressed-tensors'],
    [{ quantization_config: { quant_method: 'fp8', weight_block_size: [128, 128] } }, 'fp8'],
    [{ quantization_config: { quant_method: 'fbgemm_fp8' } }, 'fp8'],
    [{ quantization_config: { quant_method: 'exl2', bits: 4.25 } }, 'exl2'],
    [{ quantization_config: { quant_method: 'hqq', quant_config: {} } }, 'HQQ'],
    [{ quantization_config: { quant_method: 'AQLM', nbits_per_codebook: 16 } }, 'AQLM'],
    [{ aqlm: { nbits_per_codebook: 16 } }, 'AQLM'],
    [{ quantization_config: { quant_method: 'gguf' } }, 'GGUF'],
    [{ quantization_config: { quant_method: 'modelopt', quant_algo: 'FP8' } }, 'ModelOpt'],
    [{ quantization: { quant_algo: 'W4A16_AWQ' } }, 'ModelOpt'],
    [{ quantization_config: { quant_method: 'torchao' } }, 'torchao'],
    [{ quantization: 'awq' }, 'AWQ'],
  ])('%j is named', (changes, name) => {
    expect(() => read(changes)).toThrow(UnsupportedError);
    expect(() => read(changes)).toThrow(new RegExp(`quantized by .*${name}.* cannot be loaded yet`));
  });

  test.each([
    { quantization: null },
    { quantization: {} },
    { quantization: { quant_algo: null } },
    { compression_config: {} },
  ])('%j means nothing', (changes) => {
    expect(read(changes).quantizationConfig).toBeNull();
  });

  test.each([
    {},
    { load_in_4bit: false, load_in_8bit: false },
    { quant_method: 'bitsandbytes', load_in_8bit: null, bnb_4bit_quant_type: 'nf4' },
    { _load_in_4bit: false, _load_in_8bit: false, quant_method: 'bitsandbytes' },
  ])('quantization_config %j counts as none', (quantization_config) => {
    const config = read({ quantization_config });
    expect(config.quantizationConfig).toBeNull();
    expect(config.warnings).toMatchObject([{ code: 'ignored', field: 'quantization_config' }]);
    expect(config.toJSON().quantization_config).toEqual(quantization_config);
  });
});

describe('numbers', () => {
  const rope = (settings: object) => ({ rope_scaling: { type: 'linear', factor: 2, ...settings } });
  test.each([
    { num_hidden_layers: 1e9 },
    { num_hidden_layers: 2 ** 32 },
    { head_dim: 2 ** 31 },
    { vocab_size: 2 ** 40 },
    { hidden_size: 2 ** 33 },
    { num_attention_heads: 2 ** 20, num_key_value_heads: 1, head_dim: 16 },
    { hidden_size: 2 ** 17, num_attention_heads: 1, num_key_value_heads: 1, head_dim: undefined },
    { hidden_size: 2 ** 18, intermediate_size: 2 ** 20, num_hidden_layers: 9000, head_dim: 64 },
    { max_position_embeddings: 2 ** 40 },
    { rms_norm_eps: 1e300 },
    { rms_norm_eps: 0 },
    { rope_theta: 0 },
    { rope_theta: -1 },
    { rope_theta: 1e-300 },
    { rope_theta: 1e300 },
    { rope_theta: Infinity },
    { rope_theta: Number.NaN },
    rope({ factor: 1e300 }),
    rope({ factor: Number.NaN }),
    rope({ type: 'yarn', attention_factor: 1e300 }),
    rope({ type: 'yarn', beta_slow: 1e-300 }),
    { rope_theta: 1, ...rope({ type: 'yarn' }) },
    rope({ type: 'longrope', short_factor: Array(8).fill(1e-300), long_factor: Array(8).fill(1) }),
    rope({ type: 'longrope', short_factor: Array(1e5).fill(1), long_factor: [] }),
    rope({
      type: 'longrope',
      short_factor: Array(8).fill(1),
      long_factor: Array(8).fill(1),
      original_max_position_embeddings: 1,
    }),
    { partial_rotary_factor: 0.01 },
    { partial_rotary_factor: 3 / 16 },
    { partial_rotary_factor: 0.125, ...rope({ type: 'dynamic' }) },
    { layer_types: Array(1e6).fill(0) },
    { architectures: Array(1e6).fill(0) },
    { eos_token_id: Array(1e6).fill('x') },
  ])('set %# is a ConfigError at once', (changes) => {
    const started = performance.now();
    for (const name of ['llama', 'mistral']) {
      expect(() => read(changes, name)).toThrow(ConfigError);
      expect(() => read(changes, name)).toThrow(/^.{10,400}$/);
    }
    expect(performance.now() - started).toBeLessThan(4000);
  });

  test('text: depth, odd numbers, hostile names', () => {
    const deep = (n: number) => `{"model_type":"llama","a":${'['.repeat(n)}${']'.repeat(n)}}`;
    expect(() => parseModelConfig(deep(1e6))).toThrow(/nested more than 100 deep/);
    expect(() => parseConfigText(deep(MAX_JSON_DEPTH), 'x')).toThrow(ConfigError);
    expect(parseConfigText(deep(MAX_JSON_DEPTH - 1), 'x').value).toHaveProperty('a');
    expect(parseConfigText('{"a":"[[[[\\"[[{"}', 'x').value).toEqual({ a: '[[[["[[{' });
    const cyclic: Record<string, unknown> = { ...base('llama') };
    cyclic.self = cyclic;
    expect(() => parseModelConfig(cyclic)).toThrow(/nested more than/);
    for (const text of ['{"rope_theta":1e999}', '{"rope_theta":NaN}', '{"rope_theta":-Infinity}'])
      expect(() => parseModelConfig(text.replace('{', '{"model_type":"llama",'))).toThrow(QError);
    const names =
      '"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"toString":3,"hasOwnProperty":1';
    const text = `{${JSON.stringify(base('llama')).slice(1, -1)},${names},"rope_scaling":{"type":"linear","factor":2,${names}}}`;
    const config = parseModelConfig(text);
    expect(config.toText()).toBe(text);
    expect(JSON.parse(config.toText({ dtype: 'float16' }))).toHaveProperty('toString', 3);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    expect(Object.getPrototypeOf(config.raw)).toBe(Object.prototype);
  });

  test('whatever numbers a file holds: a typed error, or a config whose numbers are finite', () => {
    const odd = fc.oneof(fc.double(), fc.integer(), fc.constantFrom(0, -0, 1, 2 ** 31, 2 ** 53, 1e-320, null, 'x', []));
    const types = fc.constantFrom('default', 'linear', 'dynamic', 'yarn', 'longrope', 'llama3');
    const names = 'factor beta_fast beta_slow mscale attention_factor low_freq_factor original_max_position_embeddings';
    const scaling = fc.dictionary(fc.constantFrom(...names.split(' ')), odd);
    const keys = 'rope_theta partial_rotary_factor head_dim hidden_size num_hidden_layers max_position_embeddings';
    const top = fc.dictionary(fc.constantFrom(...keys.split(' ')), odd);
    fc.assert(
      fc.property(top, types, scaling, (changes, type, settings) => {
        try {
          const config = read({ ...changes, rope_scaling: { ...settings, type } });
          const numbers = Object.values(config.rope).filter((value) => typeof value === 'number');
          expect(numbers.every(Number.isFinite)).toBe(true);
          expect(maxContext(config)).toBeLessThanOrEqual(MAX_POSITIONS);
        } catch (error) {
          expect(error).toBeInstanceOf(QError);
        }
      }),
      { numRuns: 300 },
    );
  });
});

test('the longest context: what the scaling reaches', () => {
  const reach = (changes: object) => maxContext(read({ max_position_embeddings: 128, ...changes }));
  const scaled = (type: string, more: object = {}) => reach({ rope_scaling: { type, factor: 4, ...more } });
  const lists = { short_factor: Array(8).fill(1), long_factor: Array(8).fill(2) };
  const llama3 = { low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 };
  expect(reach({})).toBe(128);
  expect([scaled('linear'), scaled('dynamic'), scaled('yarn')]).toEqual([512, 512, 512]);
  expect(scaled('yarn', { original_max_position_embeddings: 32 })).toBe(128);
  expect(scaled('yarn', { original_max_position_embeddings: 100, factor: 2.505 })).toBe(250);
  expect(scaled('linear', { original_max_position_embeddings: 32 })).toBe(128);
  expect(scaled('longrope', { ...lists, original_max_position_embeddings: 64 })).toBe(256);
  expect(scaled('longrope', { ...lists, factor: null, original_max_position_embeddings: 32 })).toBe(128);
  expect(scaled('llama3', llama3)).toBe(128);
  expect(reach({ max_position_embeddings: 2 ** 31 - 1, rope_scaling: { type: 'linear', factor: 8 } })).toBe(
    MAX_POSITIONS,
  );
});

describe('size of a file', () => {
  const text = (more: string) => `{${more},${JSON.stringify(base('llama')).slice(1)}`;

  test('hundreds of thousands of keys or entries are refused, wherever they are', () => {
    const keys = Array.from({ length: 20_000 }, (_, i) => `"k${i}":1`).join(',');
    expect(() => parseModelConfig(text(keys))).toThrow(/it has \d+ keys/);
    expect(() => parseModelConfig(text(`"labels":[${'1.5,'.repeat(300_000)}1]`))).toThrow(/more than 262144 entries/);
    expect(parseModelConfig(text(`"id2label":{${keys}}`)).raw).toHaveProperty('id2label.k7');
  });

  test('a string of millions of escapes, ended or not', () => {
    const started = performance.now();
    const escapes = `"note":"${String.raw`\n\"`.repeat(2_000_000)}`;
    expect(parseModelConfig(text(`${escapes}"`)).raw.note).toHaveLength(4_000_000);
    expect(() => parseModelConfig(`{${escapes}`)).toThrow(ConfigError);
    expect(performance.now() - started).toBeLessThan(10_000);
  });
});
