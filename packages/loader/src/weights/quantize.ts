import { ConfigError, skipRule, UnsupportedError, unmatchedLine, type QuantizationConfig } from '@q/config';
import type { LinearSlot, ParameterSlot, Tensor, Weight } from '@q/tensor';
import { formatAsked } from '../formats/registry.js';

/** Turns the dense weight of a layer into the weight that is kept; undefined keeps it dense. */
export type Quantizer = (slot: LinearSlot) => ((dense: Tensor) => Weight) | undefined;

/** Keeps every layer dense. */
export const keepDense: Quantizer = () => undefined;

/** A line for the modules to skip that are no linear layers of the model; none when each is. */
export function skipWarnings(config: QuantizationConfig | undefined, slots: readonly ParameterSlot[]): string[] {
  const patterns = config && formatAsked(config)?.skipped(config);
  const modules = slots.flatMap((slot) => (slot.kind === 'linear' ? [slot.module] : []));
  const line = unmatchedLine(skipRule(patterns ?? []).unmatched(modules));
  return line === undefined ? [] : [line];
}

/**
 * Quantize-on-load as a config asks for it.
 * @param keep modules kept dense unless the config names others (the output head)
 * @param keepInFp32 modules kept dense in any case
 * @throws ConfigError when the config quantizes nothing; UnsupportedError for a method that loading does not do.
 */
export function quantizerFor(
  config: QuantizationConfig,
  keep: readonly string[],
  keepInFp32?: readonly string[],
): Quantizer {
  if (!config.isQuantizable)
    throw new ConfigError('load', 'the quantization config asks for neither 4 nor 8 bits', {
      fix: 'set loadIn4bit or loadIn8bit',
    });
  const format = formatAsked(config);
  if (!format)
    throw new UnsupportedError('load', `quantizing with ${config.quantMethod} while loading is not supported`, {
      fix: 'use a BitsAndBytesConfig, or load a checkpoint that is already quantized',
    });
  const rule = skipRule(keptDense(config, keep, keepInFp32));
  const quantize = format.quantizer(config);
  return (slot) => (rule.skips(slot.module) ? undefined : quantize);
}

/** The patterns of modules that a config keeps dense: those that it names, else those of the model; and `always`. */
export const keptDense = (
  config: QuantizationConfig,
  keep: readonly string[],
  always: readonly string[] = [],
): readonly string[] => [...(formatAsked(config)?.skipped(config) ?? keep), ...always];

/** What a planner has to know of a quantization: bits of a value, and the modules that stay dense. */
export interface PlannedQuantization {
  readonly bits: number;
  /** Null: those of the model. */
  readonly skipModules: readonly string[] | null;
  /** Modules off the GPU stay dense. */
  readonly cpuOffload: boolean;
}

/** The same quantization for a planner; undefined when the config quantizes nothing. */
export function plannedQuantization(config: QuantizationConfig | undefined): PlannedQuantization | undefined {
  const format = config && formatAsked(config);
  return (
    format && { bits: format.bits(config), skipModules: format.skipped(config), cpuOffload: format.cpuOffload(config) }
  );
}

/** The quantization of a config for people, and whether its products take codes as integers. */
export function describeQuantization(
  config: QuantizationConfig | undefined,
): { readonly name: string; readonly integerProducts: boolean } | undefined {
  const format = config && formatAsked(config);
  return format && { name: format.describe(config), integerProducts: format.integerProducts };
}
