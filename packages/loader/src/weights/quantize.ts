import { ConfigError, UnsupportedError, type BitsAndBytesConfig, type QuantizationConfig } from '@q/config';
import {
  cast,
  parseDType,
  quantizeBnb4,
  quantizeInt8,
  type DType,
  type LinearSlot,
  type Tensor,
  type Weight,
} from '@q/tensor';

/** Turns the dense weight of a layer into the weight that is kept; undefined keeps it dense. */
export type Quantizer = (slot: LinearSlot) => ((dense: Tensor) => Weight) | undefined;

/** Keeps every layer dense. */
export const keepDense: Quantizer = () => undefined;

/** Whether transformers leaves a module unquantized: its path begins or ends with one of the names. */
export const isSkipped = (module: string, skip: readonly string[]): boolean =>
  skip.some((name) => module.startsWith(name) || module.endsWith(name));

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
  const skip = bnb.llmInt8SkipModules ?? keep;
  if (!bnb.loadIn4bit && !bnb.loadIn8bit)
    throw new ConfigError('load', 'the quantization config asks for neither 4 nor 8 bits', {
      fix: 'set loadIn4bit or loadIn8bit',
    });
  const quantize = bnb.loadIn8bit
    ? (dense: Tensor) => quantizeThroughHalf(dense, bnb.llmInt8Threshold)
    : (dense: Tensor) =>
        quantizeBnb4(dense, {
          quantType: bnb.bnb4bitQuantType,
          doubleQuant: bnb.bnb4bitUseDoubleQuant,
          computeDtype: computeDtypeOf(bnb),
        });
  return (slot) => (isSkipped(slot.module, skip) ? undefined : quantize);
}

/** The dtype in which 4-bit products are computed. */
export const computeDtypeOf = (config: BitsAndBytesConfig): DType => parseDType(config.bnb4bitComputeDtype);
