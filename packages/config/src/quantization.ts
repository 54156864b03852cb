import { BitsAndBytesConfig } from './bitsandbytes.js';
import { ConfigError, UnsupportedError } from './errors.js';
import { GPTQConfig } from './gptq.js';
import type { ReadOptions } from './json.js';
import { isPlainObject } from './json.js';

export type QuantizationConfig = BitsAndBytesConfig | GPTQConfig;

/** The quantization methods that Q reads and writes, as `quant_method` spells them. */
export const QUANT_METHODS = Object.freeze(['bitsandbytes', 'gptq'] as const);

/**
 * Reads the `quantization_config` of a `config.json`. A missing `quant_method` means bitsandbytes when a load flag is
 * set, as in Python.
 * @throws ConfigError for bad values, UnsupportedError for other methods
 */
export function parseQuantizationConfig(json: unknown, options?: ReadOptions): QuantizationConfig {
  if (!isPlainObject(json)) throw new ConfigError('quantization_config', 'must be an object', { got: json });
  const method =
    json.quant_method ?? (json.load_in_4bit === true || json.load_in_8bit === true ? 'bitsandbytes' : undefined);
  if (method === 'bitsandbytes') return BitsAndBytesConfig.fromJSON(json, options);
  if (method === 'gptq') return GPTQConfig.fromJSON(json, options);
  if (method === undefined)
    throw new ConfigError('quantization_config', 'quant_method is missing', {
      fix: `add one of ${QUANT_METHODS.join(', ')}`,
    });
  throw new UnsupportedError('quantization_config', `unknown quant_method ${JSON.stringify(method)}`, {
    fix: `supported: ${QUANT_METHODS.join(', ')}`,
  });
}
