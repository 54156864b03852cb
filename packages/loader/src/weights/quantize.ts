import {
  ConfigError,
  skipRule,
  UnsupportedError,
  unmatchedLine,
  type BitsAndBytesConfig,
  type QuantizationConfig,
} from '@q/config';
import {
  cast,
  parseDType,
  quantizeBnb4,
  quantizeInt8,
  type DType,
  type LinearSlot,
  type ParameterSlot,
  type Tensor,
  type Weight,
} from '@q/tensor';

/** Turns the dense weight of a layer into the weight that is kept; undefined keeps it dense. */
export type Quantizer = (slot: LinearSlot) => ((dense: Tensor) => Weight) | undefined;

/** Keeps every layer dense. */
export const keepDense: Quantizer = () => undefined;

/** Whether a module stays unquantized: `skipRule` for one module. */
export const isSkipped = (module: string, skip: readonly string[]): boolean => skipRule(skip).skips(module);

/** A line for the modules to skip that are no linear layers of the model; none when each is. */
export function skipWarnings(config: QuantizationConfig | undefined, slots: readonly ParameterSlot[]): string[] {
  const patterns = config?.quantMethod === 'bitsandbytes' ? (config as BitsAndBytesConfig).llmInt8SkipModules : null;
  const modules = slots.flatMap((slot) => (slot.kind === 'linear' ? [slot.module] : []));
  const line = unmatchedLine(skipRule(patterns ?? []).unmatched(modules));
  return line === undefined ? [] : [line];
}

/** LLM.int8 is defined on f16 weights: bitsandbytes rounds others first. */
function quantizeThroughHalf(dense: Tensor, threshold: number): Weight {
  const half = dense.dtype === 'f16' ? dense : cast(dense, 'f16');
  return quantizeInt8(half, { threshold });
}

/**
 * Quantize-on-load as a config asks for it.
 * @param keep modules kept dense unless the config names others (the output head)
 * @throws ConfigError when the config quantizes nothing; UnsupportedError for a method that loading does not do.
 */
export function quantizerFor(config: QuantizationConfig, keep: readonly string[]): Quantizer {
  if (config.quantMethod !== 'bitsandbytes') {
    throw new UnsupportedError('load', `quantizing with ${config.quantMethod} while loading is not supported`, {
      fix: 'use a BitsAndBytesConfig, or load a checkpoint that is already quantized',
    });
  }
  const bnb = config as BitsAndBytesConfig;
  if (!bnb.loadIn4bit && !bnb.loadIn8bit)
    throw new ConfigError('load', 'the quantization config asks for neither 4 nor 8 bits', {
      fix: 'set loadIn4bit or loadIn8bit',
    });
  const rule = skipRule(bnb.llmInt8SkipModules ?? keep);
  const quantize = bnb.loadIn8bit
    ? (dense: Tensor) => quantizeThroughHalf(dense, bnb.llmInt8Threshold)
    : (dense: Tensor) =>
        quantizeBnb4(dense, {
          quantType: bnb.bnb4bitQuantType,
          doubleQuant: bnb.bnb4bitUseDoubleQuant,
          computeDtype: computeDtypeOf(bnb),
        });
  return (slot) => (rule.skips(slot.module) ? undefined : quantize);
}

/** The dtype in which 4-bit products are computed. */
export const computeDtypeOf = (config: BitsAndBytesConfig): DType => parseDType(config.bnb4bitComputeDtype);
