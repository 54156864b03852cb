// How the weights of a checkpoint are quantized: what the tensors say, beside what quantization_config says.
import { CheckpointError, skipRule, type QuantizationConfig } from '@q/config';
import type { FormatConfig, StoredLayer } from '../formats/format.js';
import { formatAsked, formatLabelled } from '../formats/registry.js';
import { listNames, countOf } from '../list-names.js';
import { keptDense } from './quantize.js';

export interface QuantizationRequest {
  /** Every linear layer that has weights of its own. */
  readonly layers: readonly StoredLayer[];
  /** `quantization_config` of config.json. */
  readonly stated?: QuantizationConfig;
  /** Modules that stay dense when the config names none. */
  readonly keepDense?: readonly string[];
  /** Modules that stay dense in any case. */
  readonly keepInFp32?: readonly string[];
  /** Element type that the 4-bit weights had before they were quantized, for a checkpoint that states nothing. */
  readonly dtype?: 'float32' | 'float16' | 'bfloat16';
}

const op = 'load';
const label = (config: QuantizationConfig): string => config.quantizationMethod() ?? 'nothing';

/** What {@link decideQuantization} found. */
interface Found {
  readonly layer: StoredLayer;
  readonly format: FormatConfig;
}

const isQuantized = ({ format }: StoredLayer): boolean => formatLabelled(format).config !== undefined;

/** The one format of the quantized layers; undefined when all are dense. */
function formatFound(layers: readonly StoredLayer[]): Found | undefined {
  const [layer, ...others] = layers.filter(isQuantized);
  const other = others.find(({ format }) => format !== layer.format);
  if (other)
    throw new CheckpointError(op, 'the layers are quantized in two ways', {
      [layer.module]: layer.format,
      [other.module]: other.format,
      why: 'a model has one quantization_config',
      fix: 'the files are of two saves: fetch or save the checkpoint again',
    });
  return layer && { layer, format: formatLabelled(layer.format).config! };
}

/** The config with its list of dense modules as they really are, if that list says otherwise. */
function withSkippedModules(
  config: QuantizationConfig,
  format: FormatConfig,
  { layers, keepDense = [], keepInFp32 }: QuantizationRequest,
  warnings: string[],
): QuantizationConfig {
  const rule = skipRule(keptDense(config, keepDense, keepInFp32));
  const wrong = layers.filter((layer) => rule.skips(layer.module) === isQuantized(layer));
  if (wrong.length === 0) return config;
  const dense = layers.filter((layer) => !isQuantized(layer)).map(({ module }) => module);
  const names = listNames(wrong.map(({ module, format: label }) => `${module} is ${label}`));
  warnings.push(
    `quantization_config is wrong about ${countOf(wrong.length, 'layer')}, which ${wrong.length === 1 ? 'is' : 'are'} taken as stored: ${names}`,
  );
  return format.withSkipped(config, dense);
}

function derive({ layer, format }: Found, request: QuantizationRequest, warnings: string[]): QuantizationConfig {
  const { config, note } = format.derive(layer, request.dtype ?? 'float32');
  const count = request.layers.filter((other) => other.format === layer.format).length;
  warnings.push(
    `config.json has no quantization_config that says so, but ${countOf(count, 'layer')} are stored as ${layer.format} of ${format.method}: the model counts as quantized${note}`,
  );
  return withSkippedModules(config, format, request, []);
}

/** The config with the format that the tensors have. @throws CheckpointError when it asks for another one */
function withFormat(stated: QuantizationConfig, { layer, format }: Found, warnings: string[]): QuantizationConfig {
  const tensor = `${layer.module}.weight`;
  const why = 'config.json and weights are of different saves';
  if (stated.quantMethod !== format.method)
    throw new CheckpointError(
      op,
      `config.json says ${stated.quantMethod}, the weights are ${layer.format} of ${format.method}`,
      { tensor, why },
    );
  const asked = formatAsked(stated);
  if (asked && asked !== format)
    throw new CheckpointError(
      op,
      `config.json says ${asked.bits(stated)} bit, the weights have ${format.bits(stated)}`,
      {
        tensor,
        stored: layer.format,
        config: label(stated),
        why,
        fix: 'fetch or save the checkpoint again',
      },
    );
  const { config, warning } = format.corrected(stated, layer);
  if (warning !== undefined) warnings.push(warning);
  return config;
}

/**
 * The quantization that the tensors have, as a config that says so; undefined for a dense model.
 * @returns `warnings`: what quantization_config says otherwise, a line each
 * @throws CheckpointError when layers of two formats are there, or 4-bit tensors under an 8-bit config and the reverse:
 *   then config.json and weights are of different saves.
 */
export function decideQuantization(request: QuantizationRequest): {
  readonly config: QuantizationConfig | undefined;
  readonly warnings: readonly string[];
} {
  const { layers, stated } = request;
  const found = formatFound(layers);
  const warnings: string[] = [];
  if (!found) {
    if (stated)
      warnings.push(`quantization_config says ${label(stated)}, but no weight is quantized: the model counts as dense`);
    return { config: undefined, warnings };
  }
  if (!stated?.isQuantizable) return { config: derive(found, request, warnings), warnings };
  const config = withFormat(stated, found, warnings);
  return { config: withSkippedModules(config, found.format, request, warnings), warnings };
}
