import { BitsAndBytesConfig } from './bitsandbytes.js';
import { ConfigError, UnsupportedError } from './errors.js';
import { foreignShape, notLoadable } from './foreign.js';
import { GPTQConfig } from './gptq.js';
import type { JsonObject, ReadOptions } from './json.js';
import { isPlainObject } from './json.js';

export type QuantizationConfig = BitsAndBytesConfig | GPTQConfig;

/** The quantization methods that Q reads and writes, as `quant_method` spells them. */
export const QUANT_METHODS = Object.freeze(['bitsandbytes', 'gptq'] as const);

/**
 * Reads the `quantization_config` of a `config.json`. Without `quant_method` the keys tell: load flags are those of
 * bitsandbytes, as in Python; `bits` with the settings of its solver those of GPTQ.
 * @throws ConfigError for bad values, UnsupportedError for other methods, by their names
 */
export function parseQuantizationConfig(json: unknown, options?: ReadOptions): QuantizationConfig {
  if (!isPlainObject(json)) throw new ConfigError('quantization_config', 'must be an object', { got: json });
  const method = json.quant_method ?? methodOf(json);
  if (method === 'bitsandbytes') return BitsAndBytesConfig.fromJSON(json, options);
  if (method === 'gptq') return GPTQConfig.fromJSON(json, options);
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

const FLAGS = ['load_in_4bit', 'load_in_8bit', '_load_in_4bit', '_load_in_8bit'];

/** The method of a configuration that does not say. */
function methodOf(json: Record<string, unknown>): 'bitsandbytes' | 'gptq' | undefined {
  if (FLAGS.some((key) => Object.hasOwn(json, key))) return 'bitsandbytes';
  const solver = Object.hasOwn(json, 'desc_act') || Object.hasOwn(json, 'damp_percent');
  return Object.hasOwn(json, 'bits') && solver ? 'gptq' : undefined;
}
