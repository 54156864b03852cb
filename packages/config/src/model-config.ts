import { z } from 'zod';
import type { DTypeName } from './dtype.js';
import { parseDType } from './dtype.js';
import { ConfigError, UnsupportedError } from './errors.js';
import { validate } from './fields.js';
import type { ConfigWarning, JsonObject, JsonValue, Parsed, ReadOptions } from './json.js';
import { define, frozenCopy, isPlainObject, jsonEqual, parseConfigText, toPythonJson } from './json.js';
import type { ModelDefinition } from './models/definition.js';
import { models } from './models/registry.js';
import { assertKnownKeys, didYouMean } from './names.js';
import type { QuantizationConfig } from './quantization.js';
import { parseQuantizationConfig } from './quantization.js';
import { idOrIds, nullable, text, texts } from './schema.js';

/** Changes to write when a model is saved. */
export interface ConfigChanges {
  dtype?: DTypeName;
  /** null removes it. */
  quantizationConfig?: QuantizationConfig | null;
  architectures?: readonly string[];
}

/** What every model config has, whatever the architecture. Frozen; only the typed settings are enumerable. */
export interface ModelConfigBase {
  readonly architectures: readonly string[];
  /** Element type the weights were saved in; null when the file does not say. */
  readonly dtype: DTypeName | null;
  readonly quantizationConfig: QuantizationConfig | null;
  /** Special tokens; empty or null when the file does not say. */
  readonly tokenIds: { readonly bos: readonly number[]; readonly eos: readonly number[]; readonly pad: number | null };
  /** The file as it was, frozen. */
  readonly raw: JsonObject;
  readonly warnings: readonly ConfigWarning[];
  /** The file with changes applied; all other keys as they were, in their order. */
  toJSON(changes?: ConfigChanges): JsonObject;
  /**
   * `toJSON` as text, the way Python writes it. Byte for byte the original when it was parsed from text and nothing
   * changes.
   */
  toText(changes?: ConfigChanges): string;
}

type Registry = typeof models;
type ConfigOf<D> = D extends { readonly modelType: infer M; read(...args: never[]): infer C }
  ? C & ModelConfigBase & { readonly modelType: M }
  : never;

/** A parsed `config.json`; `modelType` tells which architecture. */
export type ModelConfig = { [K in keyof Registry]: ConfigOf<Registry[K]> }[keyof Registry];
/** The `model_type`s that Q reads. */
export type ModelType = keyof Registry;
export const MODEL_TYPES: readonly ModelType[] = Object.freeze(Object.keys(models) as ModelType[]);

export interface ModelConfigOptions extends ReadOptions {
  /**
   * Keys that this file may have although Q does not know them: they are kept, reported, and have no effect. Default
   * none.
   */
  ignoreKeys?: readonly string[];
}

const generic = z.object({
  architectures: nullable(texts),
  bos_token_id: nullable(idOrIds),
  eos_token_id: nullable(idOrIds),
  pad_token_id: nullable(z.int({ error: 'must be a token id' })),
  transformers_version: nullable(text),
});

// Keys that do not change what a model computes at inference: training, bookkeeping, output format, and generation
// options of old files.
const HARMLESS = new Set(
  [
    'model_type dtype torch_dtype quantization_config initializer_range attention_dropout use_cache pretraining_tp output_attentions',
    'output_hidden_states output_scores return_dict return_dict_in_generate torchscript use_bfloat16 tf_legacy_loss id2label label2id',
    'num_labels problem_type finetuning_task task_specific_params tokenizer_class prefix sep_token_id decoder_start_token_id',
    'chunk_size_feed_forward cross_attention_hidden_size auto_map name_or_path max_sequence_length model_max_length',
    'is_llama_config transformers.js_config unsloth_version unsloth_fixed max_length min_length',
    'do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty',
    'length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences forced_bos_token_id',
    'forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens',
  ].flatMap((line) => line.split(' ')),
);

// Keys that change the maths unless they hold this value.
const NEUTRAL: Readonly<Record<string, JsonValue>> = {
  is_decoder: false,
  is_encoder_decoder: false,
  add_cross_attention: false,
  tie_encoder_decoder: false,
  pruned_heads: {},
  use_mrope: false,
  rope_interleaved: false,
};

function checkKeys(op: string, raw: JsonObject, known: readonly string[], ignored: readonly string[]): ConfigWarning[] {
  const warnings: ConfigWarning[] = [];
  for (const key of Object.keys(raw)) {
    if (known.includes(key) || HARMLESS.has(key)) continue;
    if (Object.hasOwn(NEUTRAL, key)) {
      if (raw[key] === null || jsonEqual(raw[key], NEUTRAL[key])) continue;
      throw new UnsupportedError(op, `${key} is ${JSON.stringify(raw[key])}`, {
        why: `only ${JSON.stringify(NEUTRAL[key])} is supported`,
      });
    }
    if (key.startsWith('_') || ignored.includes(key)) {
      warnings.push({
        code: 'unknown_key',
        field: key,
        message: `[${op}] unknown key ${key}; it is kept and written back, and has no effect`,
      });
      continue;
    }
    throw new ConfigError(op, `unknown key ${key} (${JSON.stringify(raw[key])})`, {
      why: 'it may change what the model computes',
      fix: `${didYouMean(key, known)}; if it has no effect, pass it in ignoreKeys`,
    });
  }
  return warnings;
}

function readDType(op: string, raw: JsonObject): DTypeName | null {
  const [current, legacy] = [raw.dtype, raw.torch_dtype].map((value) =>
    value === undefined || value === null || value === 'auto' ? null : parseDType(value, op),
  );
  if (current && legacy && current !== legacy)
    throw new ConfigError(op, `dtype is ${current} and torch_dtype is ${legacy}`, {
      why: 'both name the same setting',
    });
  return current ?? legacy;
}

function applyChanges(raw: JsonObject, changes: ConfigChanges): JsonObject {
  assertKnownKeys('ModelConfig.toJSON', changes, ['dtype', 'quantizationConfig', 'architectures']);
  const out: Record<string, JsonValue> = {};
  for (const [key, value] of Object.entries(raw)) define(out, key, value);
  const { dtype, quantizationConfig, architectures } = changes;
  const spellings = ['dtype', 'torch_dtype'].filter((key) => Object.hasOwn(raw, key));
  if (dtype !== undefined) for (const key of spellings.length > 0 ? spellings : ['dtype']) out[key] = parseDType(dtype);
  if (quantizationConfig === null) delete out.quantization_config;
  else if (quantizationConfig !== undefined) out.quantization_config = quantizationConfig.toJSON();
  if (architectures !== undefined) out.architectures = architectures;
  const keys = Object.keys(raw);
  const sorted = keys.every((key, i) => i === 0 || keys[i - 1] < key);
  return sorted ? Object.fromEntries(Object.entries(out).sort(([a], [b]) => (a < b ? -1 : 1))) : out;
}

function lookUp(raw: JsonObject): ModelDefinition {
  const type = raw.model_type;
  if (typeof type !== 'string')
    throw new ConfigError('config.json', 'model_type is missing', { fix: `add one of ${MODEL_TYPES.join(', ')}` });
  if (!Object.hasOwn(models, type))
    throw new UnsupportedError('config.json', `unknown model_type ${JSON.stringify(type)}`, {
      fix: `known: ${MODEL_TYPES.join(', ')}`,
    });
  return models[type as ModelType] as unknown as ModelDefinition;
}

/**
 * Reads a model's `config.json`, as an object or (better, since `1.0` and `1` differ on disk) as text. Missing keys and
 * unknown ones that may change the maths are errors. Both the transformers 5 form and the older one give equal configs.
 * @throws ConfigError for missing, unknown or contradicting settings; UnsupportedError for an unknown `model_type`
 *   (listing the known ones)
 * and for settings that Q does not compute; DTypeError for an unknown dtype
 */
export function parseModelConfig(json: unknown, { onWarning, ignoreKeys = [] }: ModelConfigOptions = {}): ModelConfig {
  const parsed: Parsed = typeof json === 'string' ? parseConfigText(json, 'config.json') : { value: json };
  if (!isPlainObject(parsed.value))
    throw new ConfigError('config.json', 'must be a JSON object', { got: parsed.value });
  const raw = frozenCopy(parsed.value) as JsonObject;
  const definition = lookUp(raw);
  const op = `config.json (${definition.modelType})`;
  const known = [...Object.keys(definition.shape), ...Object.keys(generic.shape), ...(definition.alsoReads ?? [])];
  const warnings = checkKeys(op, raw, known, ignoreKeys);
  const common = validate(op, generic, raw);
  const settings = definition.read(validate(op, z.object(definition.shape), raw), raw, op);
  const quantization = raw.quantization_config ?? null;
  const quantizationConfig =
    quantization === null
      ? null
      : parseQuantizationConfig(quantization, { onWarning: (warning) => warnings.push(warning) });
  const config = {
    modelType: definition.modelType,
    architectures: frozenCopy(common.architectures ?? []),
    dtype: readDType(op, raw),
    tokenIds: frozenCopy({
      bos: [common.bos_token_id ?? []].flat(),
      eos: [common.eos_token_id ?? []].flat(),
      pad: common.pad_token_id,
    }),
    ...frozenCopy(settings),
    quantizationConfig,
  };
  const toText = (changes: ConfigChanges = {}): string => {
    const value = applyChanges(raw, changes);
    if (typeof json === 'string' && jsonEqual(value, raw)) return json;
    const own = ['llm_int8_threshold', 'damp_percent'].map((key) => `quantization_config/${key}`);
    const floats = parsed.floats && new Set([...parsed.floats, ...own]);
    return toPythonJson(value, { floats, exactFloats: floats !== undefined, indent: parsed.indent });
  };
  const hidden = {
    raw,
    warnings: frozenCopy(warnings),
    toJSON: (changes: ConfigChanges = {}) => applyChanges(raw, changes),
    toText,
  };
  for (const [key, value] of Object.entries(hidden)) Object.defineProperty(config, key, { value });
  for (const warning of warnings) onWarning?.(warning);
  return Object.freeze(config) as unknown as ModelConfig;
}
