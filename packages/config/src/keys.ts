// What happens to a key of config.json that the architecture does not read. Python's classes keep every unknown key and
// compute without it. Most of them are notes (trainers, exporters, other programs) and are passed over here too. Some
// name a part of the computation that other architectures have; a file that sets one describes another model than the
// one that would be computed, so it is refused unless the value says that the part is not there.
import { ConfigError, UnsupportedError } from './errors.js';
import { show } from './fields.js';
import type { ConfigWarning, JsonObject, JsonValue } from './json.js';
import { isPlainObject, jsonEqual } from './json.js';
import { closest } from './names.js';

const words = (lines: readonly string[]): string[] => lines.flatMap((line) => line.split(' '));

// Well-known keys that do not change what a model computes at inference: training, bookkeeping, output format, and
// generation options of old files. They are not worth a line.
const HARMLESS = new Set(
  words([
    'model_type dtype torch_dtype quantization_config initializer_range attention_dropout use_cache pretraining_tp output_attentions',
    'output_hidden_states output_scores return_dict return_dict_in_generate torchscript use_bfloat16 tf_legacy_loss id2label label2id',
    'num_labels problem_type finetuning_task task_specific_params tokenizer_class prefix decoder_start_token_id',
    'chunk_size_feed_forward cross_attention_hidden_size auto_map name_or_path max_sequence_length model_max_length',
    'is_llama_config is_decoder transformers.js_config unsloth_version unsloth_fixed max_length min_length',
    'do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty',
    'length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences',
    'router_aux_loss_coef router_jitter_noise output_router_logits',
    'remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens',
  ]),
);

// Of the same kind: Python's private attributes, dropouts, special tokens, initial values of weights.
const HARMLESS_KINDS = /^_|drop|_tokens?(_ids?|_index)?$|(^|_)(init|initializer|initialization)(_|$)/;

// Training: noted, although some of the names look like parts of a computation (loss_scale, max_grad_norm).
const TRAINING =
  /loss|grad(s|ient)?(_|$)|optim|learning_rate|warmup|train|neftune|^lora_|_lora_(alpha|modules)|peft|wandb|finetun/;

/** When a key that names a part of the computation says that the part is absent, or as it is here anyway. */
type Neutral = (value: JsonValue, raw: JsonObject) => boolean;

const values =
  (...neutral: readonly JsonValue[]): Neutral =>
  (value) =>
    neutral.some((candidate) => jsonEqual(candidate, value));

const sameAs =
  (...keys: readonly string[]): Neutral =>
  (value, raw) =>
    keys.some((key) => Object.hasOwn(raw, key) && jsonEqual(raw[key], value));

const headDimOf = ({ head_dim: own, hidden_size: hidden, num_attention_heads: heads }: JsonObject): JsonValue =>
  own ?? (typeof hidden === 'number' && typeof heads === 'number' ? hidden / heads : null);

const anyOf =
  (...all: readonly Neutral[]): Neutral =>
  (value, raw) =>
    all.some((neutral) => neutral(value, raw));

/** A window as long as the trained context hides nothing; some files switch it off beside its length. */
const hidesNothing: Neutral = (window, raw) =>
  raw.use_sliding_window === false ||
  (typeof window === 'number' &&
    typeof raw.max_position_embeddings === 'number' &&
    window >= raw.max_position_embeddings);

interface Part {
  /** Names of the part, as other architectures spell it. */
  readonly names: RegExp;
  readonly neutral: Neutral;
  /** Whether `false` (and null, 0, '', [] and {}) does not switch it off: these keys are on by default. */
  readonly onByDefault?: boolean;
}

const off = values();
/** The first row that matches a key decides. Every row also takes null, false, '', [] and {} as "not there". */
const PARTS: readonly Part[] = [
  { names: /^(is_)?causal$/, neutral: values(true), onByDefault: true },
  { names: /^(use_)?(rope|rotary)(_emb|_embeddings?)?$/, neutral: values(true, 'auto'), onByDefault: true },
  { names: /^(use_)?(rms_?norm|swiglu|glu|gated_mlp)$/, neutral: values(true), onByDefault: true },
  { names: /^no_bias$/, neutral: values(true), onByDefault: true },
  { names: /^scale_attn_weights$/, neutral: values(true), onByDefault: true },
  // An epsilon under another name, beside the one that is read.
  { names: /norm_eps(ilon)?$/, neutral: (_, raw) => typeof raw.rms_norm_eps === 'number' },
  { names: /norm(alization)?_(type|function|class)$|^norm$/, neutral: values('rms', 'rmsnorm', 'rms_norm', 'RMSNorm') },
  { names: /(^|_)(qk|q|k)?_?((layer|rms)?_?norms?|normali[sz]e|normali[sz]ation)(_|$)/, neutral: off },
  { names: /^attention_multiplier$/, neutral: (v, raw) => v === 1 / Math.sqrt(Number(headDimOf(raw))) },
  { names: /query_pre_attn_scalar/, neutral: (value, raw) => value === headDimOf(raw) },
  { names: /(^|_)(scales?|scaling|multipliers?|mup|temperature_tuning)(_|$)/, neutral: values(1) },
  { names: /soft_?cap|logits?_?cap|clip_?qkv|qkv_?clip|clamp|^clip$|swiglu_limit/, neutral: values(0) },
  { names: /experts?(_|$)/, neutral: values(0, 1) },
  { names: /^qk_|_qk_|^(q|kv)_lora_rank$|(^|_)mla(_|$)/, neutral: values(0) },
  { names: /(rotary|rope)_?(emb)?_?(dims?|ndims)$/, neutral: (value, raw) => value === headDimOf(raw) },
  { names: /(rotary|rope)_?(emb)?_?(base|theta)$/, neutral: sameAs('rope_theta') },
  {
    names: /position(al)?_(embedding|encoding)s?(_type)?$|^pos_emb|^rope_type$/,
    neutral: values('rope', 'rotary', 'default'),
  },
  { names: /rotary|(^|_)(rope|nope|no_rope|alibi|ntk|logn)(_|$)/, neutral: values(1) },
  { names: /(^|_)bias(es)?(_|$)/, neutral: values('none') },
  {
    names: /^sliding_|(^|_)window(s|_size)?$|local_attention|attention_chunk/,
    neutral: anyOf(values(0, -1), hidesNothing),
  },
  { names: /^layer_types$/, neutral: (v) => Array.isArray(v) && v.every((type) => type === 'full_attention') },
  { names: /(attn|attention)_(type|pattern)s?$/, neutral: values('full', 'full_attention', 'causal', 'gqa', 'mha') },
  {
    names: /parallel_(attn|attention|residual)|bidirectional|prefix_lm|multi_query|kv_shar|shared_kv|sinks?(_|$)/,
    neutral: values(0),
  },
  {
    names: /^(hidden_activation|activation(_function|_type)?|(mlp|ffn)_(act|activation|hidden_act))$/,
    neutral: anyOf(sameAs('hidden_act'), (v, raw) => v === 'swiglu' && (raw.hidden_act ?? 'silu') === 'silu'),
  },
];

const isEmpty = (value: JsonValue): boolean =>
  value === null ||
  value === false ||
  value === '' ||
  (Array.isArray(value) && value.length === 0) ||
  (isPlainObject(value) && Object.keys(value).length === 0);

/** Whether a key names a part of a computation that its value switches on. */
export function changesTheMaths(key: string, value: JsonValue, raw: JsonObject): boolean {
  const part = TRAINING.test(key) ? undefined : PARTS.find(({ names }) => names.test(key));
  if (part === undefined || value === null) return false;
  return !((isEmpty(value) && !part.onByDefault) || part.neutral(value, raw));
}

// Keys that Q knows and does not compute: refused as unsupported unless they hold this value.
const UNSUPPORTED: Readonly<Record<string, JsonValue>> = {
  is_encoder_decoder: false,
  add_cross_attention: false,
  tie_encoder_decoder: false,
  pruned_heads: {},
  use_mrope: false,
  rope_interleaved: false,
};

/** What an error about a key says at its end. */
export const ignoreAdvice = (path: string): string =>
  `if it has no effect, pass "${path}" in ignoreConfigKeys (--ignore-config-key on the command line)`;

export const passedOver = (op: string, path: string): ConfigWarning => ({
  code: 'unknown_key',
  field: path,
  message: `[${op}] unknown key ${path}; it is kept and written back, and has no effect`,
});

export interface KnownKeys {
  /** Keys that the architecture reads. */
  readonly read: readonly string[];
  /** Values of keys of other architectures that describe what this one does anyway. */
  readonly neutral?: Readonly<Record<string, readonly JsonValue[]>>;
  /** Path of the object in the file. Default: the file itself. */
  readonly place?: string;
}

/**
 * Judges every key that the architecture does not read.
 * @returns a line for each that is passed over and not well known
 * @throws ConfigError for a key that changes the maths, and for one that looks like a misspelt known key;
 *   UnsupportedError for what Q knows and does not compute
 */
export function checkKeys(op: string, raw: JsonObject, { read, neutral = {}, place }: KnownKeys): ConfigWarning[] {
  const warnings: ConfigWarning[] = [];
  const known = new Set(read);
  for (const [key, value] of Object.entries(raw)) {
    if (known.has(key) || HARMLESS.has(key) || HARMLESS_KINDS.test(key) || value === null) continue;
    const path = place === undefined ? key : `${place}.${key}`;
    if (Object.hasOwn(UNSUPPORTED, key)) {
      if (jsonEqual(value, UNSUPPORTED[key])) continue;
      throw new UnsupportedError(op, `${path} is ${show(value)}`, {
        why: `only ${JSON.stringify(UNSUPPORTED[key])} is supported`,
        fix: ignoreAdvice(path),
      });
    }
    const meant = closest(key, read, 2);
    const same = Object.hasOwn(neutral, key) && neutral[key].some((candidate) => jsonEqual(candidate, value));
    if (!same && (meant !== undefined || changesTheMaths(key, value, raw))) {
      throw new ConfigError(op, `unknown key ${path} (${show(value)})`, {
        why: 'it may change what the model computes',
        fix: `${meant === undefined ? '' : `did you mean ${meant}? `}${ignoreAdvice(path)}`,
      });
    }
    warnings.push(passedOver(op, path));
  }
  return warnings;
}
