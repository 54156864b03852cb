import { BitsAndBytesConfig, ConfigError, type ModelConfig, type QuantizationConfig } from '@q/config';

export interface QuantizationOptions {
  /** LLM.int8 with default settings. */
  readonly loadIn8bit?: boolean;
  /** 4 bit with the defaults of BitsAndBytesConfig (fp4, as in Python). */
  readonly loadIn4bit?: boolean;
  readonly quantizationConfig?: QuantizationConfig;
}

/**
 * What the options and the checkpoint say together.
 * @returns `stored`: how the checkpoint is quantized already; `wanted`: how to quantize it while loading
 * @throws ConfigError when options contradict each other or the checkpoint.
 */
export function quantizationFor(
  config: ModelConfig,
  { loadIn8bit = false, loadIn4bit = false, quantizationConfig }: QuantizationOptions,
): { stored?: QuantizationConfig; wanted?: QuantizationConfig } {
  if (quantizationConfig && (loadIn8bit || loadIn4bit)) {
    throw new ConfigError('fromPretrained', 'quantizationConfig is given beside loadIn8bit or loadIn4bit', {
      fix: 'say all in quantizationConfig',
    });
  }
  const wanted =
    quantizationConfig ?? (loadIn8bit || loadIn4bit ? new BitsAndBytesConfig({ loadIn8bit, loadIn4bit }) : undefined);
  const stored = config.quantizationConfig ?? undefined;
  if (!stored) return { wanted };
  if (wanted && wanted.quantizationMethod() !== stored.quantizationMethod()) {
    throw new ConfigError(
      'fromPretrained',
      `the checkpoint is quantized already, with ${stored.quantizationMethod()}`,
      { asked: wanted.quantizationMethod(), fix: 'load it as it is, or start from the unquantized checkpoint' },
    );
  }
  return { stored };
}
