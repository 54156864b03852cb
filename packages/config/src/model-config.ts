import { z } from 'zod';
import type { DTypeName } from './dtype.js';
import { parseDType } from './dtype.js';
import { ConfigError, UnsupportedError } from './errors.js';
import { show, validate } from './fields.js';
import { refuseForeignWeights } from './foreign.js';
import type { ConfigWarning, JsonObject, JsonValue, Parsed, ReadOptions } from './json.js';
import {
  checkDepth,
  checkKeyCount,
  define,
  frozenCopy,
  isPlainObject,
  jsonEqual,
  parseConfigText,
  toPythonJson,
} from './json.js';
import { checkKeys } from './keys.js';
import type { ModelDefinition } from './model-definition.js';
import { assertKnownKeys } from './names.js';
import type { QuantizationConfig } from './quantization.js';
import { parseQuantizationConfig } from './quantization.js';
import { idOrIds, nullable, text, texts } from './schema.js';

/** Changes to write when a model is saved. */
export interface ConfigChanges {
  dtype?: DTypeName;
  /** null removes it. */
  quantizationConfig?: QuantizationConfig | null;
  architectures?: readonly string[];
  /** Whether the output head shares the embedding: for weights that say otherwise than the file. */
  tieWordEmbeddings?: boolean;
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

/** The config that a definition reads. */
export type ConfigOf<D> = D extends { readonly modelType: infer M; read(...args: never[]): infer C }
  ? C & ModelConfigBase & { readonly modelType: M }
  : never;

export interface ModelConfigOptions extends ReadOptions {
  /**
   * Keys to read the file without, `rope_scaling.alpha` for one inside an object: they are kept, reported and written
   * back, and have no effect. Default none.
   */
  ignoreConfigKeys?: readonly string[];
}

const generic = z.object({
  architectures: nullable(texts),
  bos_token_id: nullable(idOrIds),
  eos_token_id: nullable(idOrIds),
  pad_token_id: nullable(z.int({ error: 'must be a token id' })),
  transformers_version: nullable(text),
});

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

function applyChanges(raw: JsonObject, changes: ConfigChanges, followsTies: () => JsonObject): JsonObject {
  assertKnownKeys('ModelConfig.toJSON', changes, ['dtype', 'quantizationConfig', 'architectures', 'tieWordEmbeddings']);
  const out: Record<string, JsonValue> = {};
  for (const [key, value] of Object.entries(raw)) define(out, key, value);
  const { dtype, quantizationConfig, architectures, tieWordEmbeddings } = changes;
  const spellings = ['dtype', 'torch_dtype'].filter((key) => Object.hasOwn(raw, key));
  if (dtype !== undefined) for (const key of spellings.length > 0 ? spellings : ['dtype']) out[key] = parseDType(dtype);
  if (quantizationConfig === null) delete out.quantization_config;
  else if (quantizationConfig !== undefined) out.quantization_config = quantizationConfig.toJSON();
  if (architectures !== undefined) out.architectures = architectures;
  if (tieWordEmbeddings !== undefined) Object.assign(out, followsTies(), { tie_word_embeddings: tieWordEmbeddings });
  const keys = Object.keys(raw);
  const sorted = keys.every((key, i) => i === 0 || keys[i - 1] < key);
  return sorted ? Object.fromEntries(Object.entries(out).sort(([a], [b]) => (a < b ? -1 : 1))) : out;
}

type Definitions = Readonly<Record<string, ModelDefinition>>;

function lookUp(models: Definitions, raw: JsonObject): ModelDefinition {
  const known = Object.keys(models).join(', ');
  const type = raw.model_type;
  if (typeof type !== 'string')
    throw new ConfigError('config.json', 'model_type is missing', { fix: `add one of ${known}` });
  if (!Object.hasOwn(models, type))
    throw new UnsupportedError('config.json', `unknown model_type ${show(type)}`, { fix: `known: ${known}` });
  return models[type];
}

/** `raw` without some keys, and a line for each. A path that leads to nothing gets a line too. */
function without(op: string, raw: JsonObject, paths: readonly string[], warnings: ConfigWarning[]): JsonObject {
  let out = raw;
  for (const path of paths) {
    const less = withoutPath(out, Object.hasOwn(out, path) ? [path] : path.split('.'));
    warnings.push({
      code: 'ignored',
      field: path,
      message:
        less === undefined
          ? `[${op}] ignoreConfigKeys names ${path}, which the file does not have`
          : `[${op}] ${path} is ignored, as ignoreConfigKeys says`,
    });
    out = less ?? out;
  }
  return out;
}

function withoutPath(object: JsonObject, [key, ...rest]: readonly string[]): JsonObject | undefined {
  if (!Object.hasOwn(object, key)) return undefined;
  const inner = object[key];
  const less = rest.length === 0 || !isPlainObject(inner) ? undefined : withoutPath(inner as JsonObject, rest);
  if (rest.length > 0 && less === undefined) return undefined;
  const out: Record<string, JsonValue> = {};
  for (const [name, value] of Object.entries(object)) {
    if (name !== key) define(out, name, value);
    else if (less !== undefined) define(out, name, less);
  }
  return out;
}

/** How the weights are quantized already; a configuration that quantizes nothing counts as none. */
function readQuantization(
  op: string,
  raw: JsonObject,
  warn: (warning: ConfigWarning) => void,
): QuantizationConfig | null {
  refuseForeignWeights(op, raw);
  const json = raw.quantization_config ?? null;
  if (json === null) return null;
  const none = (why: string): null => {
    warn({
      code: 'ignored',
      field: 'quantization_config',
      message: `[${op}] quantization_config ${why}, so the weights count as not quantized`,
    });
    return null;
  };
  if (isPlainObject(json) && Object.keys(json).length === 0) return none('is empty');
  const config = parseQuantizationConfig(json, { onWarning: warn });
  return config.isQuantizable ? config : none('asks for neither 4 nor 8 bits');
}

/** Special tokens; those of a key that the file lacks are the class's. */
function readTokenIds(
  raw: JsonObject,
  common: z.output<typeof generic>,
  defaults: ModelDefinition['tokenIds'],
): ModelConfigBase['tokenIds'] {
  const idsOf = (key: 'bos' | 'eos'): number[] =>
    Object.hasOwn(raw, `${key}_token_id`) ? [common[`${key}_token_id`] ?? []].flat() : [defaults?.[key] ?? []].flat();
  const pad = Object.hasOwn(raw, 'pad_token_id') ? common.pad_token_id : (defaults?.pad ?? null);
  return { bos: idsOf('bos'), eos: idsOf('eos'), pad };
}

/** Lines for sizes that are those of the Python class because the file has none. */
const defaultsTaken = (op: string, raw: JsonObject, keys: object, expected: readonly string[] = []): ConfigWarning[] =>
  expected
    .filter((key) => (raw[key] ?? null) === null)
    .map((key) => ({
      code: 'changed',
      field: key,
      message: `[${op}] ${key} is missing; ${String((keys as Record<string, unknown>)[key])} is taken, the default of the Python class`,
    }));

/** The typed settings of a file, and lines for what was passed over. */
function readSettings(definition: ModelDefinition, op: string, raw: JsonObject, warnings: ConfigWarning[]): object {
  const warn = (warning: ConfigWarning): void => void warnings.push(warning);
  const read = [...Object.keys(definition.shape), ...Object.keys(generic.shape), ...(definition.alsoReads ?? [])];
  const quantizationConfig = readQuantization(op, raw, warn);
  for (const warning of checkKeys(op, raw, { read, neutral: definition.neutral })) warn(warning);
  const common = validate(op, generic, raw);
  const keys = validate(op, z.object(definition.shape), raw);
  for (const warning of defaultsTaken(op, raw, keys, definition.expected)) warn(warning);
  return {
    modelType: definition.modelType,
    architectures: frozenCopy(common.architectures ?? []),
    dtype: readDType(op, raw),
    tokenIds: frozenCopy(readTokenIds(raw, common, definition.tokenIds)),
    ...frozenCopy(definition.read(keys, raw, { op, warn })),
    quantizationConfig,
  };
}

/**
 * Reads a model's `config.json`, as an object or (better, since `1.0` and `1` differ on disk) as text. Missing keys
 * have the defaults of the Python class. Unknown keys that may change the maths are errors, others are passed over with
 * a line in `warnings` (the rule is in keys.ts). Both the transformers 5 form and the older one give equal configs.
 * @param models the architectures that are known, by `model_type`
 * @throws ConfigError for implausible, unknown or contradicting settings; UnsupportedError for an unknown `model_type`
 *   (listing the known ones), for weights that another program quantized, and for settings that Q does not compute;
 *   DTypeError for an unknown dtype
 */
export function readModelConfig<R extends Definitions>(
  models: R,
  json: unknown,
  options: ModelConfigOptions = {},
): ConfigOf<R[keyof R]> {
  assertKnownKeys('parseModelConfig', options, ['onWarning', 'ignoreConfigKeys']);
  const { onWarning, ignoreConfigKeys = [] } = options;
  const parsed: Parsed = typeof json === 'string' ? parseConfigText(json, 'config.json') : { value: json };
  if (!isPlainObject(parsed.value))
    throw new ConfigError('config.json', 'must be a JSON object', { got: show(parsed.value) });
  checkDepth(parsed.value, 'config.json');
  checkKeyCount(parsed.value, 'config.json');
  const raw = frozenCopy(parsed.value) as JsonObject;
  if (!Array.isArray(ignoreConfigKeys) || !ignoreConfigKeys.every((key) => typeof key === 'string'))
    throw new ConfigError('config.json', 'ignoreConfigKeys must be a list of keys', { got: show(ignoreConfigKeys) });
  const warnings: ConfigWarning[] = [];
  const definition = lookUp(models, raw);
  const op = `config.json (${definition.modelType})`;
  const config = readSettings(definition, op, without(op, raw, ignoreConfigKeys, warnings), warnings);
  const followsTies = () => definition.followsTies?.(config) ?? {};
  const toText = (changes: ConfigChanges = {}): string => {
    const value = applyChanges(raw, changes, followsTies);
    if (typeof json === 'string' && jsonEqual(value, raw)) return json;
    const own = ['llm_int8_threshold', 'damp_percent'].map((key) => `quantization_config/${key}`);
    const floats = parsed.floats && new Set([...parsed.floats, ...own]);
    return toPythonJson(value, { floats, exactFloats: floats !== undefined, indent: parsed.indent });
  };
  const hidden = {
    raw,
    warnings: frozenCopy(warnings),
    toJSON: (changes: ConfigChanges = {}) => applyChanges(raw, changes, followsTies),
    toText,
  };
  for (const [key, value] of Object.entries(hidden)) Object.defineProperty(config, key, { value });
  for (const warning of warnings) onWarning?.(warning);
  return Object.freeze(config) as unknown as ConfigOf<R[keyof R]>;
}
