import { BitsAndBytesConfig } from './bitsandbytes.js';
import { ConfigError, UnsupportedError } from './errors.js';
import { foreignShape, notLoadable } from './foreign.js';
import { GPTQConfig } from './gptq.js';
import type { JsonObject, ReadOptions } from './json.js';
import { isPlainObject } from './json.js';

export type QuantizationConfig = BitsAndBytesConfig | GPTQConfig;

type MethodName = QuantizationConfig['quantMethod'];
type Settings = Readonly<Record<string, unknown>>;

interface Method {
  /** As its authors write it. */
  readonly title: string;
  readonly read: (json: unknown, options?: ReadOptions) => QuantizationConfig;
  /** Whether settings without `quant_method` are its own. */
  readonly owns: (json: Settings) => boolean;
}

const has = (json: Settings, ...keys: readonly string[]): boolean => keys.some((key) => Object.hasOwn(json, key));

/** By `quant_method`; a new one is a class of its own and a row here. */
const METHODS: Readonly<Record<MethodName, Method>> = {
  bitsandbytes: {
    title: 'bitsandbytes',
    read: (json, options) => BitsAndBytesConfig.fromJSON(json, options),
    owns: (json) => has(json, 'load_in_4bit', 'load_in_8bit', '_load_in_4bit', '_load_in_8bit'),
  },
  gptq: {
    title: 'GPTQ',
    read: (json, options) => GPTQConfig.fromJSON(json, options),
    owns: (json) => has(json, 'bits') && has(json, 'desc_act', 'damp_percent'),
  },
};

/** The quantization methods that Q reads and writes, as `quant_method` spells them. */
export const QUANT_METHODS: readonly MethodName[] = Object.freeze(Object.keys(METHODS) as MethodName[]);

const isMethod = (method: unknown): method is MethodName =>
  typeof method === 'string' && Object.hasOwn(METHODS, method);

/**
 * The method of a `quantization_config`: what it says, else what its keys tell. Load flags are those of bitsandbytes,
 * as in Python; `bits` with the settings of its solver those of GPTQ.
 */
export const quantizationMethodOf = (json: Settings): unknown =>
  json.quant_method ?? QUANT_METHODS.find((method) => METHODS[method].owns(json));

/** The error for weights quantized by a method that is read as a config only. */
export const methodNotLoadable = (op: string, method: MethodName): UnsupportedError =>
  notLoadable(op, METHODS[method].title);

/**
 * Reads the `quantization_config` of a `config.json`; see {@link quantizationMethodOf}.
 * @throws ConfigError for bad values, UnsupportedError for other methods, by their names
 */
export function parseQuantizationConfig(json: unknown, options?: ReadOptions): QuantizationConfig {
  if (!isPlainObject(json)) throw new ConfigError('quantization_config', 'must be an object', { got: json });
  const method = quantizationMethodOf(json);
  if (isMethod(method)) return METHODS[method].read(json, options);
  const name = foreignShape(json as JsonObject);
  if (name !== undefined) throw notLoadable('quantization_config', name);
  if (method === undefined)
    throw new ConfigError('quantization_config', 'quant_method is missing', {
      fix: `add one of ${QUANT_METHODS.join(', ')}`,
    });
  throw new UnsupportedError('quantization_config', `unknown quant_method ${JSON.stringify(method)}`, {
    fix: `supported: ${QUANT_METHODS.join(', ')}`,
  });
}
