import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { BitsAndBytesConfig, ConfigError, DTypeError, QError, UnsupportedError, type JsonObject } from '@q/config';
import { parseModelConfig, type ModelConfig } from './registry.js';
import type { DecoderConfig } from './shared/decoder-config.js';

const root = fileURLToPath(new URL('../fixtures/', import.meta.url));
const quantized = fileURLToPath(new URL('../../config/fixtures/quantized/', import.meta.url));
const read = (name: string): string => readFileSync(`${root}${name}.json`, 'utf8');
const json = (name: string): JsonObject => JSON.parse(read(name)) as JsonObject;
const names = [
  'bart',
  'bert',
  'bert-legacy-names',
  'blenderbot-small',
  'bloom',
  'bloom-heads6',
  'cohere',
  'cohere-qknorm',
  'cohere2',
  'deepseek_v3',
  'deepseek_v3-lite',
  'falcon-7b',
  'falcon-new',
  'falcon-rw',
  'gpt2',
  'gemma',
  'gemma2',
  'gemma3_text',
  'glm4',
  'gpt_bigcode',
  'gpt_bigcode-mha',
  'gpt_neox',
  'gpt_oss',
  'gptj',
  'granite',
  'llama',
  'llama-bf16',
  'llama-bin',
  'llama-fp16',
  'llama-rope-dynamic',
  'llama-rope-linear',
  'llama-rope-llama3',
  'llama-rope-yarn',
  'llama-sharded',
  'ministral',
  'mistral',
  'mixtral',
  'mpt',
  'mpt-clip',
  'olmo2',
  'opt',
  'opt-postnorm',
  'phi',
  'phi-qknorm',
  'phi3',
  'phi3-longrope',
  'm2m_100',
  'marian',
  'mbart',
  'mt5',
  'pegasus',
  'qwen2',
  'qwen2_moe',
  'qwen3',
  'qwen3_moe',
  'smollm3',
  'stablelm',
  'stablelm-qknorm',
  'starcoder2',
  't5',
  't5-encoder',
  't5-v1_1',
  'xglm',
  'umt5',
];
const parseLlama = (json: unknown) => parseModelConfig(json) as ModelConfig & DecoderConfig;
const llama = (changes: Record<string, unknown>, base = 'llama.config') => {
  const merged = { ...json(`configs/${base}`), ...changes };
  return parseLlama(Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== undefined)));
};

describe('files of transformers', () => {
  test.each(names)('%s: both forms give equal configs and are written back byte for byte', (name) => {
    const [current, legacy] = [`configs/${name}.config`, `configs/${name}.config.legacy`].map((file) =>
      parseModelConfig(read(file)),
    );
    expect({ ...legacy }).toEqual({ ...current });
    for (const file of [`configs/${name}.config`, `configs/${name}.config.legacy`]) {
      expect(parseModelConfig(read(file)).toText()).toBe(read(file));
      expect(JSON.stringify(parseModelConfig(json(file)).toJSON())).toBe(JSON.stringify(json(file)));
      expect(parseModelConfig(json(file)).warnings).toEqual([]);
    }
  });

  test('llama, in full', () => {
    expect({ ...parseModelConfig(read('configs/llama-rope-llama3.config')) }).toEqual({
      modelType: 'llama',
      architectures: ['LlamaForCausalLM'],
      dtype: 'float32',
      quantizationConfig: null,
      tokenIds: { bos: [1], eos: [2], pad: 0 },
      vocabSize: 384,
      hiddenSize: 64,
      intermediateSize: 96,
      numLayers: 2,
      numHeads: 4,
      numKvHeads: 2,
      headDim: 16,
      maxPositionEmbeddings: 256,
      rmsNormEps: 1e-5,
      hiddenAct: 'silu',
      activationClass: 'SiLUActivation',
      attentionBias: false,
      attentionOutputBias: false,
      mlpBias: false,
      tieWordEmbeddings: false,
      slidingWindow: null,
      layerTypes: ['full_attention', 'full_attention'],
      rope: {
        type: 'llama3',
        theta: 10000,
        partialRotaryFactor: 1,
        factor: 8,
        lowFreqFactor: 1,
        highFreqFactor: 4,
        originalMaxPositionEmbeddings: 32,
      },
    });
  });

  test('nano, mistral and qwen2', () => {
    expect(parseModelConfig(read('configs/nano.config'))).toMatchObject({
      dtype: 'bfloat16',
      numLayers: 8,
      headDim: 64,
      tieWordEmbeddings: true,
      tokenIds: { bos: [0], eos: [0], pad: 1 },
    });
    expect(parseModelConfig(read('configs/mistral.config'))).toMatchObject({
      slidingWindow: 8,
      layerTypes: ['sliding_attention', 'sliding_attention'],
      attentionBias: false,
    });
    expect(parseModelConfig(read('configs/qwen2.config'))).toMatchObject({
      attentionBias: true,
      attentionOutputBias: false,
      tieWordEmbeddings: true,
      slidingWindow: null,
      rope: { theta: 1e6 },
    });
  });

  test('quantized checkpoints carry their quantization', () => {
    let seen = 0;
    for (const file of readdirSync(quantized).filter(
      (name) => /\.llama\..*[^e]_?config\.json$/.test(name) && !name.endsWith('quantize_config.json'),
    )) {
      const config = parseModelConfig(readFileSync(quantized + file, 'utf8'));
      expect(config.quantizationConfig?.quantMethod ?? null, file).toBe(
        file.startsWith('gptq') ? 'gptq' : file.includes('fp16') ? null : 'bitsandbytes',
      );
      seen++;
    }
    expect(seen).toBe(14);
  });

  test('adding a quantization gives the file that Python saves', () => {
    const before = readFileSync(`${quantized}bnb.llama.fp16.config.json`, 'utf8');
    const quantizationConfig = new BitsAndBytesConfig({
      loadIn4bit: true,
      bnb4bitQuantType: 'nf4',
      bnb4bitUseDoubleQuant: true,
      bnb4bitComputeDtype: 'bfloat16',
    });
    const saved = parseModelConfig(before).toText({ quantizationConfig, dtype: 'bfloat16' });
    expect(saved.trimEnd()).toBe(readFileSync(`${quantized}bnb.llama.nf4-nested-bf16.config.json`, 'utf8').trimEnd());
    expect(parseModelConfig(saved).toText({ quantizationConfig: null, dtype: 'float16' }).trimEnd()).toBe(
      before.trimEnd(),
    );
  });

  test('a legacy file keeps torch_dtype', () => {
    const text = read('configs/llama.config.legacy');
    expect(parseModelConfig(text).toText({ dtype: 'float16' }).trimEnd()).toBe(
      text.replace('"torch_dtype": "float32"', '"torch_dtype": "float16"').trimEnd(),
    );
    expect(() => parseModelConfig(text).toJSON({ quantisation: null } as never)).toThrow(ConfigError);
  });
});

describe('strictness', () => {
  test.each([
    [{ hidden_size: 0 }, ConfigError, /hidden_size is 0; must be at least 1/],
    [
      { num_attention_heads: 5, head_dim: null },
      ConfigError,
      /num_attention_heads is 5; must divide hidden_size \(64\)/,
    ],
    [{ num_key_value_heads: 3 }, ConfigError, /num_key_value_heads is 3; must divide num_attention_heads \(4\)/],
    [{ hidden_act: 'mish' }, ConfigError, /hidden_act is "mish"; must be one of silu/],
    [{ attention_bias: 'no' }, ConfigError, /attention_bias is "no"; must be true or false/],
    [{ sliding_windw: 4 }, ConfigError, /unknown key sliding_windw/],
    [{ logit_scale: 2 }, ConfigError, /unknown key logit_scale \(2\); it may change what the model computes/],
    [{ mlp_bais: true }, ConfigError, /did you mean mlp_bias\?/],
    [{ is_encoder_decoder: true }, UnsupportedError, /is_encoder_decoder is true/],
    [{ dtype: 'float8' }, DTypeError, /unknown dtype/],
    [{ torch_dtype: 'bfloat16' }, ConfigError, /dtype is float32 and torch_dtype is bfloat16/],
    [{ model_type: 'llamma' }, UnsupportedError, /unknown model_type "llamma".*known: .*ministral3, mistral/],
    [{ model_type: 'llamma' }, UnsupportedError, /unknown model_type "llamma".*known: .*llama, .*mistral/],
    [{ model_type: 'constructor' }, UnsupportedError, /unknown model_type/],
    [{ model_type: undefined }, ConfigError, /model_type is missing/],
    [{ eos_token_id: 'x' }, ConfigError, /eos_token_id/],
    [{ quantization_config: { quant_method: 'awq' } }, UnsupportedError, /quantized by AWQ cannot be loaded yet/],
  ])('%j is refused', (changes, kind, message) => {
    expect(() => llama(changes)).toThrow(kind);
    expect(() => llama(changes)).toThrow(message);
  });

  test('harmless and private keys are accepted', () => {
    expect(llama({ is_decoder: true, id2label: {}, temperature: 0.7, pruned_heads: {} }).warnings).toEqual([]);
    expect(llama({ _name_or_path: 'x' }).warnings).toEqual([]);
  });

  test('oddities of well-known hub files', () => {
    const odd = {
      is_llama_config: true,
      rope_interleaved: false,
      'transformers.js_config': { kv_cache_dtype: {} },
      use_mrope: false,
      unsloth_fixed: true,
      max_sequence_length: 2048,
    };
    expect(llama(odd).warnings).toEqual([]);
    expect(() => llama({ rope_interleaved: true })).toThrow(UnsupportedError);
    expect(() => llama({ use_mrope: true })).toThrow(/use_mrope is true; only false is supported/);
  });

  test('defaults: old Llama files, several end tokens', () => {
    const old = llama(
      {
        num_key_value_heads: undefined,
        head_dim: undefined,
        rope_theta: undefined,
        attention_bias: undefined,
        mlp_bias: undefined,
        tie_word_embeddings: undefined,
        eos_token_id: [1, 2],
        torch_dtype: null,
      },
      'llama.config.legacy',
    );
    expect(old).toMatchObject({
      numKvHeads: 4,
      headDim: 16,
      attentionBias: false,
      tieWordEmbeddings: false,
      dtype: null,
      tokenIds: { eos: [1, 2] },
      rope: { type: 'default', theta: 10000 },
    });
  });

  test('everything is frozen', () => {
    const config = parseLlama(json('configs/llama.config'));
    for (const part of [config, config.rope, config.layerTypes, config.tokenIds, config.tokenIds.eos, config.raw])
      expect(Object.isFrozen(part)).toBe(true);
  });

  test('any damaged value gives a typed error or a config, never anything else', () => {
    const base = json('configs/qwen2.config');
    for (const key of Object.keys(base)) {
      for (const value of [null, -1, 0, 1.5, 'x', true, [], {}, [null], { a: { b: 1 } }, Number.MAX_SAFE_INTEGER]) {
        if (key === 'num_hidden_layers' && value === Number.MAX_SAFE_INTEGER) continue;
        try {
          parseModelConfig({ ...base, [key]: value });
        } catch (error) {
          expect(error, `${key} ${JSON.stringify(value)}`).toBeInstanceOf(QError);
        }
      }
    }
    for (const odd of ['', '[]', 'null', 7, null, [], undefined])
      expect(() => parseModelConfig(odd)).toThrow(ConfigError);
  });
});

describe('layers that slide', () => {
  const qwen2 = (changes: object) => parseModelConfig({ ...json('configs/qwen2.config.legacy'), ...changes });
  test('qwen2: from max_window_layers on', () => {
    expect(qwen2({ use_sliding_window: true, sliding_window: 32, max_window_layers: 1 })).toMatchObject({
      slidingWindow: 32,
      layerTypes: ['full_attention', 'sliding_attention'],
    });
    expect(qwen2({ use_sliding_window: true, sliding_window: 32, max_window_layers: 2 })).toMatchObject({
      slidingWindow: null,
    });
    expect(() => qwen2({ layer_types: ['full_attention'] })).toThrow(
      /layer_types has 1 entries; must have one per layer \(2\)/,
    );
    expect(() => qwen2({ layer_types: ['full_attention', 'sliding_attention'] })).toThrow(/no sliding_window/);
  });
  test('mistral: null means full attention, a missing key 4096', () => {
    const { sliding_window: _, ...rest } = json('configs/mistral.config');
    expect(parseModelConfig(rest)).toMatchObject({ slidingWindow: 4096 });
    expect(parseModelConfig({ ...rest, sliding_window: null })).toMatchObject({
      slidingWindow: null,
      layerTypes: ['full_attention', 'full_attention'],
    });
  });
});

describe('rope', () => {
  const factors = Array.from({ length: 8 }, (_, i) => 1 + i);
  test.each([
    [
      { type: 'dynamic', factor: 2 },
      { factor: 2, originalMaxPositionEmbeddings: 128 },
    ],
    [
      { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 32 },
      { attentionFactor: null, betaFast: 32, betaSlow: 1, originalMaxPositionEmbeddings: 32, truncate: true },
    ],
    [
      { type: 'su', short_factor: factors, long_factor: factors, original_max_position_embeddings: 64 },
      { type: 'longrope', factor: 2, shortFactor: factors },
    ],
    [
      { type: 'linear', factor: 4, partial_rotary_factor: 0.5 },
      { type: 'linear', factor: 4, partialRotaryFactor: 0.5 },
    ],
  ])('%j, the same in both forms', (scaling, expected) => {
    const legacy = llama({ rope_scaling: scaling, rope_theta: 500000 }, 'llama.config.legacy');
    const current = llama({ rope_parameters: { ...scaling, rope_theta: 500000 } });
    expect(legacy.rope).toMatchObject({ theta: 500000, ...expected });
    expect(current.rope).toEqual(legacy.rope);
    expect(llama({ rope_parameters: scaling, rope_theta: 500000 }).rope).toEqual(legacy.rope);
  });

  test.each([
    [{ rope_parameters: { rope_type: 'mrope' } }, /unknown rope type "mrope".*supported: default/],
    [{ rope_parameters: { rope_type: 'linear' } }, /rope factor is missing/],
    [{ rope_parameters: { rope_type: 'linear', factor: 0.5 } }, /rope factor is 0.5; must be 1 or more/],
    [
      { rope_parameters: { rope_type: 'dynamic', factor: 2, alpha: 1000 } },
      /unknown key alpha \(1000\) in the rope settings of type dynamic.*"rope_parameters.alpha" in ignoreConfigKeys/,
    ],
    [{ rope_parameters: { rope_type: 'linear', facter: 2, factor: 2 } }, /did you mean factor\?/],
    [{ rope_parameters: { rope_type: 'yarn', factor: 2, logit_scale: 2 } }, /unknown key logit_scale/],
    [{ rope_parameters: { rope_type: 'linear', type: 'yarn' } }, /both name the same setting/],
    [{ rope_parameters: { full_attention: { rope_type: 'default' } } }, /differ between kinds of layers/],
    [{ rope_parameters: { rope_theta: 1 }, rope_theta: 2 }, /rope_theta is 2/],
    [{ rope_scaling: { type: 'linear', factor: 2 } }, /say different things/],
    [{ rope_parameters: 3 }, /rope_parameters must be an object/],
    [
      { rope_parameters: { rope_type: 'longrope', short_factor: [1], long_factor: [1] } },
      /short_factor has 1 entries; must have 8/,
    ],
    [
      {
        rope_parameters: {
          rope_type: 'llama3',
          factor: 8,
          low_freq_factor: 4,
          high_freq_factor: 1,
          original_max_position_embeddings: 32,
        },
      },
      /low_freq_factor is 4; must be below/,
    ],
  ])('%j is refused', (changes, message) => {
    expect(() => llama(changes)).toThrow(message);
  });
});

describe('gpt_neox', () => {
  const neox = (changes: Record<string, unknown>, base = 'gpt_neox.config') =>
    parseModelConfig(
      Object.fromEntries(
        Object.entries({ ...json(`configs/${base}`), ...changes }).filter(([, value]) => value !== undefined),
      ),
    );
  const legacy = (changes: Record<string, unknown>) => neox(changes, 'gpt_neox.config.legacy');

  test('its spellings of the rotation, and what stands beside them in later files', () => {
    const rope = { type: 'default', theta: 25000, partialRotaryFactor: 0.5 };
    expect(legacy({ rotary_emb_base: 25000, rotary_pct: 0.5 })).toMatchObject({ rope });
    const both = { rotary_emb_base: 25000, rope_theta: 25000, rotary_pct: 0.5, partial_rotary_factor: 0.5 };
    expect(legacy(both)).toMatchObject({ rope });
    expect(legacy({ rotary_emb_base: undefined, rotary_pct: undefined })).toMatchObject({
      rope: { theta: 10000, partialRotaryFactor: 0.25 },
    });
    expect(legacy({ rope_scaling: { type: 'linear', factor: 4 } })).toMatchObject({
      rope: { type: 'linear', factor: 4, theta: 10000, partialRotaryFactor: 0.25 },
    });
    expect(neox({ rope_parameters: { rope_type: 'default' } })).toMatchObject({ rope: { partialRotaryFactor: 0.25 } });
  });

  test.each([
    [{ rotary_emb_base: 10000, rope_theta: 5000 }, /rotary_emb_base is 10000 and rope_theta is 5000/],
    [{ rotary_pct: 0.5, partial_rotary_factor: 0.25 }, /rotary_pct is 0.5 and partial_rotary_factor is 0.25/],
    [{ rotary_pct: 0 }, /rotary_pct is 0; must be in \(0, 1\]/],
    [{ rotary_emb_base: 'x' }, /rotary_emb_base/],
    [{ num_attention_heads: 5 }, /must divide hidden_size/],
    [{ use_parallel_residul: false }, /did you mean use_parallel_residual/],
    [{ use_parallel_residual: 'no' }, /must be true or false/],
    [{ num_key_value_heads: 2, multi_query: true }, /multi_query/],
  ])('%j is refused', (changes, message) => {
    expect(() => legacy(changes)).toThrow(ConfigError);
    expect(() => legacy(changes)).toThrow(message);
  });

  test('a base in rope_parameters that differs from the older key is refused', () => {
    expect(() => neox({ rotary_emb_base: 5000 })).toThrow(
      /rotary_emb_base is 5000 and rope_parameters.rope_theta is 10000/,
    );
  });

  test('what its published files have beside is passed over', () => {
    const notes = { attention_probs_dropout_prob: 0, hidden_dropout_prob: 0, gradient_checkpointing: false };
    expect(legacy({ ...notes, hidden_act: 'gelu_fast' })).toMatchObject({ hiddenAct: 'gelu_tanh' });
  });
});

describe('gpt2', () => {
  const gpt2 = (changes: Record<string, unknown>) => parseModelConfig({ ...json('configs/gpt2.config'), ...changes });

  test('has the defaults of the Python class', () => {
    expect(parseModelConfig({ model_type: 'gpt2' })).toMatchObject({
      vocabSize: 50257,
      hiddenSize: 768,
      numLayers: 12,
      numHeads: 12,
      intermediateSize: 3072,
      maxPositionEmbeddings: 1024,
      layerNormEps: 1e-5,
      activation: 'gelu_tanh',
      scaleAttention: true,
      scaleByLayer: false,
      tieWordEmbeddings: true,
    });
  });

  test('takes both spellings of a size, and what its published files have beside', () => {
    const usual = { hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, max_position_embeddings: 64 };
    const notes = { n_ctx: 64, task_specific_params: { 'text-generation': { do_sample: true } } };
    expect(gpt2({ ...usual, ...notes, n_inner: 100 })).toMatchObject({ hiddenSize: 64, intermediateSize: 100 });
  });

  test.each([
    [{ hidden_size: 128 }, /n_embd is 64 and hidden_size is 128/],
    [{ n_head: 5 }, /must divide n_embd/],
    [{ add_cross_attention: true }, /add_cross_attention/],
    [{ activation_function: 'tanh' }, /activation_function/],
    [{ scale_attn_by_inverse_layer_idx: 1 }, /must be true or false/],
    [{ scale_attn_by_layer_idx: true }, /scale_attn_by_layer_idx/],
  ])('%j is refused', (changes, message) => {
    expect(() => gpt2(changes)).toThrow(message);
  });
});
