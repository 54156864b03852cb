// Sources followed: transformers 5.17 GPTQConfig; the exllama options of transformers 4 and AutoGPTQ's
// quantize_config.json.
import { z } from 'zod';
import { ConfigError, UnsupportedError } from './errors.js';
import type { Spec } from './fields.js';
import { changed, configClass, decode } from './fields.js';
import type { JsonObject, ReadOptions } from './json.js';
import { flag, integer, nullable, positive, real, record, text, texts } from './schema.js';

const DATASETS = ['wikitext2', 'c4', 'c4-new'] as const;

/** The options of `GPTQConfig`; in brackets their defaults. Only `bits` has none. */
export interface GPTQOptions {
  bits: 2 | 3 | 4 | 8;
  /** Tokenizer for the calibration texts: an id, a folder or an object. An object is written to disk as null [null]. */
  tokenizer: string | object | null;
  /** Calibration texts, or `wikitext2`, `c4`, `c4-new` [null]. */
  dataset: string | readonly string[] | null;
  /** Inputs that share a scale; -1: all inputs of a row [128]. */
  groupSize: number;
  /** Damping, as a share of the mean Hessian diagonal, in (0, 1) [0.1]. */
  dampPercent: number;
  /** Quantize columns in order of falling activation [false]. */
  descAct: boolean;
  /** Reorder inside and between groups; forced to false by `descAct` [true]. */
  actGroupAware: boolean;
  /** Zero point fixed at the middle [true]. */
  sym: boolean;
  /** Quantize the sets of modules inside a block one after the other [true]. */
  trueSequential: boolean;
  /** Find all group parameters before quantizing (AutoGPTQ) [false]. */
  staticGroups: boolean;
  /** `gptq` stores zero points minus one, `gptq_v2` as they are [gptq]. */
  checkpointFormat: 'gptq' | 'gptq_v2';
  /** Facts about the tool that quantized [null]. */
  meta: JsonObject | null;
  /** Kernel choice, lower case [auto]. */
  backend: string;
  modelSeqlen: number | null;
  /** Path of the list of blocks, e.g. `model.layers` [null: from the architecture]. */
  blockNameToQuantize: string | null;
  moduleNamePrecedingFirstBlock: readonly string[] | null;
  batchSize: number;
  padTokenId: number | null;
  maxInputLength: number | null;
  /** Keep the outputs of a block as the inputs of the next one [true]. */
  cacheBlockOutputs: boolean;
  /** Sets of module names, quantized one set after the other [null: from the architecture]. */
  modulesInBlockToQuantize: readonly (readonly string[])[] | null;
  /** transformers 4; null when not stated. */
  useCudaFp16: boolean | null;
  /** transformers 4; null when not stated. */
  useExllama: boolean | null;
  /** transformers 4, the opposite of `useExllama`; turned into it, so always null afterwards. */
  disableExllama: boolean | null;
  /** transformers 4: `{ version: 1 | 2, ... }`. */
  exllamaConfig: JsonObject | null;
}

const bool = z.boolean({ error: 'must be true or false' });
const bits = z.literal([2, 3, 4, 8], { error: 'must be one of 2, 3, 4, 8' });

const schema: z.ZodType<GPTQOptions> = z.object({
  bits,
  tokenizer: nullable(
    z.union([text, z.custom<object>((value) => typeof value === 'object')], {
      error: 'must be a string or a tokenizer',
    }),
  ),
  dataset: nullable(
    z.union([z.enum(DATASETS), texts], { error: `must be a list of strings or one of ${DATASETS.join(', ')}` }),
  ),
  groupSize: integer.refine((n) => n === -1 || n > 0, { error: 'must be greater than 0 or equal to -1' }).default(128),
  dampPercent: real.refine((x) => x > 0 && x < 1, { error: 'must be between 0 and 1, both excluded' }).default(0.1),
  descAct: flag(false),
  actGroupAware: flag(true),
  sym: flag(true),
  trueSequential: flag(true),
  staticGroups: flag(false),
  checkpointFormat: text
    .toLowerCase()
    .default('gptq')
    .pipe(z.enum(['gptq', 'gptq_v2'], { error: 'must be gptq or gptq_v2' })),
  meta: nullable(record),
  backend: text
    .toLowerCase()
    .nullish()
    .transform((value) => value ?? 'auto'),
  modelSeqlen: nullable(positive),
  blockNameToQuantize: nullable(text),
  moduleNamePrecedingFirstBlock: nullable(texts),
  batchSize: positive.default(1),
  padTokenId: nullable(integer),
  maxInputLength: nullable(positive),
  cacheBlockOutputs: flag(true),
  modulesInBlockToQuantize: nullable(z.array(texts, { error: 'must be a list of lists of module names' })),
  useCudaFp16: nullable(bool),
  useExllama: nullable(bool),
  disableExllama: nullable(bool),
  exllamaConfig: nullable(record),
});

const check: NonNullable<Spec<GPTQOptions>['check']> = (values, warn) => {
  const out = { ...values };
  if (out.disableExllama !== null && out.useExllama !== null) {
    throw new ConfigError('GPTQConfig', `useExllama is ${out.useExllama} and disableExllama is ${out.disableExllama}`, {
      why: 'both name the same setting',
      fix: 'give useExllama only',
    });
  }
  if (out.disableExllama !== null) {
    warn({
      code: 'deprecated',
      field: 'disable_exllama',
      message: '[GPTQConfig] disableExllama is deprecated; it was read as the opposite of useExllama',
    });
    out.useExllama = !out.disableExllama;
    out.disableExllama = null;
  }
  const version = out.exllamaConfig?.version;
  if (out.exllamaConfig !== null && version !== 1 && version !== 2) {
    throw new ConfigError('GPTQConfig', `exllamaConfig.version is ${JSON.stringify(version) ?? 'missing'}`, {
      why: 'must be 1 or 2',
    });
  }
  if (out.descAct && out.actGroupAware) out.actGroupAware = false;
  return out;
};

const SPEC: Spec<GPTQOptions> = {
  op: 'GPTQConfig',
  schema,
  check,
  keys: {
    bits: 'bits',
    tokenizer: 'tokenizer',
    dataset: 'dataset',
    groupSize: 'group_size',
    dampPercent: 'damp_percent',
    descAct: 'desc_act',
    actGroupAware: 'act_group_aware',
    sym: 'sym',
    trueSequential: 'true_sequential',
    staticGroups: 'static_groups',
    checkpointFormat: 'checkpoint_format',
    meta: 'meta',
    backend: 'backend',
    modelSeqlen: 'model_seqlen',
    blockNameToQuantize: 'block_name_to_quantize',
    moduleNamePrecedingFirstBlock: 'module_name_preceding_first_block',
    batchSize: 'batch_size',
    padTokenId: 'pad_token_id',
    maxInputLength: 'max_input_length',
    cacheBlockOutputs: 'cache_block_outputs',
    modulesInBlockToQuantize: 'modules_in_block_to_quantize',
    useCudaFp16: 'use_cuda_fp16',
    useExllama: 'use_exllama',
    disableExllama: 'disable_exllama',
    exllamaConfig: 'exllama_config',
  },
  constants: { quant_method: 'gptq' },
  kept: ['model_name_or_path', 'model_file_base_name', 'is_marlin_format', 'lm_head', 'dynamic', 'pack_dtype'],
  omitNull: ['useCudaFp16', 'useExllama', 'disableExllama', 'exllamaConfig'],
};

/** Settings of a file that change how its tensors must be read, and that Q does not know. */
function refuse(raw: JsonObject): void {
  const { dynamic, is_marlin_format: marlin, pack_dtype: pack } = raw;
  const odd =
    (typeof dynamic === 'object' && dynamic !== null && Object.keys(dynamic).length > 0 && 'dynamic') ||
    (marlin === true && 'is_marlin_format') ||
    (pack !== undefined && pack !== null && pack !== 'int32' && 'pack_dtype');
  if (odd) {
    throw new UnsupportedError('GPTQConfig', `${odd} is ${JSON.stringify(raw[odd])}`, {
      why: 'the tensors of such a checkpoint have another layout',
      fix: 'use a checkpoint with one setting for all modules, packed in int32 words',
    });
  }
}

/**
 * How GPTQ quantizes a model: `new GPTQConfig({ bits: 4, groupSize: 128, dataset: texts })`. Frozen.
 * @throws ConfigError for an unknown option or a value that breaks a rule
 */
export class GPTQConfig extends configClass(SPEC) {
  /** Always `gptq`; written as `quant_method`. */
  get quantMethod(): 'gptq' {
    return 'gptq';
  }

  /**
   * Reads a `quantization_config` or a `quantize_config.json`, as an object or as text.
   * @throws ConfigError for values that break a rule, UnsupportedError for per-module settings and other packings
   */
  static fromJSON(json: unknown, options?: ReadOptions): GPTQConfig {
    const decoded = decode(SPEC, json, options);
    const raw = decoded.source!.raw;
    const method = raw.quant_method ?? undefined;
    if (method !== undefined && method !== 'gptq')
      throw new ConfigError('GPTQConfig', `quant_method is ${JSON.stringify(method)}`, { why: 'must be gptq' });
    refuse(raw);
    return new GPTQConfig(decoded);
  }

  /** A copy with some options changed; unknown keys of the file it came from stay. @throws ConfigError */
  with(changes: Partial<GPTQOptions>): GPTQConfig {
    return new GPTQConfig(changed(SPEC, this, changes));
  }

  /** Always true: a GPTQ configuration has no way of saying "off". */
  get isQuantizable(): boolean {
    return true;
  }

  quantizationMethod(): 'gptq' {
    return 'gptq';
  }
}
