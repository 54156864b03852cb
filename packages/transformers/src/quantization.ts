import {
  BitsAndBytesConfig,
  ConfigError,
  describeValue,
  UnsupportedError,
  type BitsAndBytesOptions,
  type QuantizationConfig,
} from '@q/config';
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
 * @throws ConfigError when options contradict each other or the checkpoint; UnsupportedError for GPTQ.
 */
export function quantizationFor(
  config: ModelConfig,
  { loadIn8bit = false, loadIn4bit = false, quantizationConfig }: QuantizationOptions,
  op = 'fromPretrained',
): QuantizationDecision {
  checkOptions(op, { loadIn8bit, loadIn4bit, quantizationConfig });
  if (quantizationConfig && (loadIn8bit || loadIn4bit)) {
    throw new ConfigError(op, 'quantizationConfig is given beside loadIn8bit or loadIn4bit', {
      fix: 'say all in quantizationConfig',
    });
  }
  const flags = { ...(loadIn8bit && { loadIn8bit }), ...(loadIn4bit && { loadIn4bit }) };
  const wanted = quantizationConfig ?? (loadIn8bit || loadIn4bit ? new BitsAndBytesConfig(flags) : undefined);
  for (const given of [config.quantizationConfig, wanted]) refuseGptq(given ?? undefined, op);
  const stored = (config.quantizationConfig ?? undefined) as BitsAndBytesConfig | undefined;
  if (!stored) return { wanted, warnings: [] };
  if (!wanted) return { stored, warnings: [] };
  return withSettings(stored, wanted as BitsAndBytesConfig, op);
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

function refuseGptq(config: QuantizationConfig | undefined, op: string): void {
  if (config === undefined || config.quantMethod === 'bitsandbytes') return;
  throw new UnsupportedError(op, 'weights quantized by GPTQ cannot be loaded yet', {
    why: 'Q reads dense and bitsandbytes (nf4, fp4, LLM.int8) weights',
    fix: 'use the unquantized checkpoint (loadIn4bit and loadIn8bit quantize it while loading), or one that bitsandbytes quantized',
  });
}

/** Settings of how to compute, which a quantized checkpoint can have anew. */
const APPLICABLE = ['bnb4bitComputeDtype', 'llmInt8Threshold', 'llmInt8EnableFp32CpuOffload'] as const;

/** What is settled by how the weights were quantized. */
const SETTLED = [
  'bnb4bitQuantType',
  'bnb4bitUseDoubleQuant',
  'bnb4bitQuantStorage',
  'llmInt8SkipModules',
  'llmInt8HasFp16Weight',
] as const;

const bitsOf = ({ loadIn8bit, loadIn4bit }: BitsAndBytesConfig): 4 | 8 | undefined =>
  loadIn8bit ? 8 : loadIn4bit ? 4 : undefined;

/** A quantized checkpoint beside what the caller has said about quantization; what nobody set says nothing. */
function withSettings(stored: BitsAndBytesConfig, wanted: BitsAndBytesConfig, op: string): QuantizationDecision {
  const method = stored.quantizationMethod();
  const said = (option: keyof BitsAndBytesOptions) =>
    wanted.sourceOf(option) !== 'default' && JSON.stringify(wanted[option]) !== JSON.stringify(stored[option]);
  const [bits, storedBits] = [bitsOf(wanted), bitsOf(stored)];
  const other = SETTLED.filter(said);
  const isOther = bits !== undefined && bits !== storedBits;
  if (isOther || other.length > 0) {
    const asked = isOther ? `${bits} bit` : other.map((name) => `${name} ${JSON.stringify(wanted[name])}`).join(', ');
    throw new ConfigError(op, `the checkpoint is quantized already, with ${method}`, {
      asked,
      fix: 'load it as it is, or start from the unquantized checkpoint',
    });
  }
  const applied = APPLICABLE.filter(said);
  const changes = Object.fromEntries(applied.map((name) => [name, wanted[name]]));
  const taken = applied.length > 0 ? `, with ${applied.join(' and ')} as given` : '';
  return {
    stored: applied.length > 0 ? stored.with(changes) : stored,
    warnings: [`the checkpoint is quantized already (${method}): it is loaded as it is${taken}`],
  };
}
