import { BitsAndBytesConfig, ConfigError, describeValue, methodNotLoadable, type QuantizationConfig } from '@q/config';
import { formatAsked, plannedQuantization } from '@q/loader';
import type { ModelConfig } from '@q/models';

export interface QuantizationOptions {
  /** LLM.int8 with default settings. */
  readonly loadIn8bit?: boolean;
  /** 4 bit with the defaults of BitsAndBytesConfig (fp4, as in Python). */
  readonly loadIn4bit?: boolean;
  readonly quantizationConfig?: QuantizationConfig;
}

/** How the weights are kept. */
export interface QuantizationDecision {
  /** How the checkpoint is quantized already, with the caller's settings for computing with it. */
  readonly stored?: QuantizationConfig;
  /** How to quantize dense weights while loading. */
  readonly wanted?: QuantizationConfig;
  /** Lines for options that change nothing. */
  readonly warnings: readonly string[];
}

/**
 * What the options and the checkpoint say together; loader and planner both ask. A checkpoint that is quantized already
 * stays as it is: options that say the same change nothing, as in Python, and settings of how to compute are applied.
 * @throws ConfigError when options contradict each other or the checkpoint; UnsupportedError for methods whose
 *   weights are not loaded.
 */
export function quantizationFor(
  config: ModelConfig,
  { loadIn8bit = false, loadIn4bit = false, quantizationConfig }: QuantizationOptions,
  op = 'fromPretrained',
): QuantizationDecision {
  checkOptions(op, { loadIn8bit, loadIn4bit, quantizationConfig });
  const flags = flagged({ loadIn8bit, loadIn4bit });
  if (quantizationConfig && flags) {
    throw new ConfigError(op, 'quantizationConfig is given beside loadIn8bit or loadIn4bit', {
      fix: 'say all in quantizationConfig',
    });
  }
  const wanted = quantizationConfig ?? flags;
  for (const given of [config.quantizationConfig, wanted]) refuseUnloadable(given ?? undefined, op);
  const stored = config.quantizationConfig ?? undefined;
  if (!stored) return { wanted, warnings: [] };
  if (!wanted) return { stored, warnings: [] };
  return withSettings(stored, wanted, op);
}

/** The config of flags, which fill in for one; undefined when none is set. */
function flagged(flags: { loadIn8bit: boolean; loadIn4bit: boolean }): QuantizationConfig | undefined {
  const set = Object.fromEntries(Object.entries(flags).filter(([, on]) => on));
  return Object.keys(set).length > 0 ? new BitsAndBytesConfig(set) : undefined;
}

/** @throws ConfigError for options that are of another kind */
function checkOptions(op: string, { quantizationConfig, ...flags }: QuantizationOptions): void {
  for (const [name, value] of Object.entries(flags))
    if (typeof value !== 'boolean')
      throw new ConfigError(op, `${name} is ${describeValue(value)}`, { fix: 'give true or false' });
  const given: unknown = quantizationConfig;
  const { quantMethod, toText } = (given ?? {}) as Partial<QuantizationConfig>;
  const isConfig = typeof quantMethod === 'string' && typeof toText === 'function';
  if ((given ?? null) === null || isConfig) return;
  throw new ConfigError(op, `quantizationConfig is ${describeValue(given)}`, {
    fix: 'give a BitsAndBytesConfig: new BitsAndBytesConfig({ loadIn4bit: true })',
  });
}

/** @throws UnsupportedError for a config that quantizes, in a format that weights are not loaded in */
function refuseUnloadable(config: QuantizationConfig | undefined, op: string): void {
  if (config?.isQuantizable && !formatAsked(config)) throw methodNotLoadable(op, config.quantMethod);
}

/** A quantized checkpoint beside what the caller has said about quantization; what nobody set says nothing. */
function withSettings(stored: QuantizationConfig, wanted: QuantizationConfig, op: string): QuantizationDecision {
  const method = stored.quantizationMethod();
  const format = formatAsked(stored);
  const asked = formatAsked(wanted);
  const { config, applied, settled } = format?.compare(stored, wanted) ?? { config: stored, applied: [], settled: [] };
  const isOther = asked !== undefined && asked !== format;
  if (isOther || settled.length > 0)
    throw new ConfigError(op, `the checkpoint is quantized already, with ${method}`, {
      asked: isOther ? `${plannedQuantization(wanted)!.bits} bit` : settled.join(', '),
      fix: 'load it as it is, or start from the unquantized checkpoint',
    });
  const taken = applied.length > 0 ? `, with ${applied.join(' and ')} as given` : '';
  return {
    stored: config,
    warnings: [`the checkpoint is quantized already (${method}): it is loaded as it is${taken}`],
  };
}
