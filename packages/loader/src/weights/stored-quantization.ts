// How the weights of a checkpoint are quantized: what the tensors say, beside what quantization_config says.
import { BitsAndBytesConfig, CheckpointError, type QuantizationConfig } from '@q/config';
import { listNames, countOf } from '../list-names.js';
import { isSkipped } from './quantize.js';

type StoredFormat = 'nf4' | 'fp4' | 'int8';

/** How one linear layer is stored. */
export interface StoredLayer {
  readonly module: string;
  readonly format: 'dense' | StoredFormat;
  /** Whether the absmax of a 4-bit weight are quantized too. */
  readonly nested?: boolean;
}

type QuantizedLayer = StoredLayer & { readonly format: StoredFormat };

export interface QuantizationRequest {
  /** Every linear layer that has weights of its own. */
  readonly layers: readonly StoredLayer[];
  /** `quantization_config` of config.json. */
  readonly stated?: QuantizationConfig;
  /** Modules that stay dense when the config names none. */
  readonly keepDense?: readonly string[];
  /** Element type that the 4-bit weights had before they were quantized, for a checkpoint that states nothing. */
  readonly dtype?: 'float32' | 'float16' | 'bfloat16';
}

const op = 'load';
const label = (config: QuantizationConfig): string => config.quantizationMethod() ?? 'nothing';

/** The one format of the quantized layers; undefined when all are dense. */
function formatOf(layers: readonly StoredLayer[]): QuantizedLayer | undefined {
  const quantized = layers.filter((layer): layer is QuantizedLayer => layer.format !== 'dense');
  const other = quantized.find(({ format }) => format !== quantized[0].format);
  if (other)
    throw new CheckpointError(op, 'the layers are quantized in two ways', {
      [quantized[0].module]: quantized[0].format,
      [other.module]: other.format,
      why: 'a model has one quantization_config',
      fix: 'the files are of two saves: fetch or save the checkpoint again',
    });
  return quantized[0];
}

/** The config with its list of dense modules as they really are, if that list says otherwise. */
function withSkippedModules(
  config: BitsAndBytesConfig,
  { layers, keepDense = [] }: QuantizationRequest,
  warnings: string[],
): BitsAndBytesConfig {
  const skip = config.llmInt8SkipModules ?? keepDense;
  const wrong = layers.filter(({ module, format }) => isSkipped(module, skip) !== (format === 'dense'));
  if (wrong.length === 0) return config;
  const dense = layers.filter(({ format }) => format === 'dense').map(({ module }) => module);
  const names = listNames(wrong.map(({ module, format }) => `${module} is ${format}`));
  warnings.push(
    `quantization_config is wrong about ${countOf(wrong.length, 'layer')}, which ${wrong.length === 1 ? 'is' : 'are'} taken as stored: ${names}`,
  );
  return config.with({ llmInt8SkipModules: dense });
}

function derive(found: QuantizedLayer, request: QuantizationRequest, warnings: string[]): BitsAndBytesConfig {
  const { format, nested = false } = found;
  const dtype = request.dtype ?? 'float32';
  const config =
    format === 'int8'
      ? new BitsAndBytesConfig({ loadIn8bit: true })
      : new BitsAndBytesConfig({
          loadIn4bit: true,
          bnb4bitQuantType: format === 'fp4' ? 'fp4' : 'nf4',
          bnb4bitUseDoubleQuant: nested,
          bnb4bitComputeDtype: dtype,
        });
  const count = request.layers.filter((layer) => layer.format === format).length;
  warnings.push(
    `config.json has no quantization_config that says so, but ${countOf(count, 'layer')} are stored as ${format} of bitsandbytes: the model counts as quantized` +
      (format === 'int8' ? '' : `, with ${dtype} products`),
  );
  return withSkippedModules(config, request, []);
}

const bitsOf = (format: string | null): number => (format === 'int8' || format === 'llm_int8' ? 8 : 4);

/** The config with the 4-bit format that the tensors have. @throws CheckpointError when they have other bits */
function withFormat(stated: BitsAndBytesConfig, found: QuantizedLayer, warnings: string[]): BitsAndBytesConfig {
  const method = stated.quantizationMethod();
  const { format, nested = false } = found;
  if (bitsOf(method) !== bitsOf(format))
    throw new CheckpointError(op, `config.json says ${bitsOf(method)} bit, the weights have ${bitsOf(format)}`, {
      tensor: `${found.module}.weight`,
      stored: format,
      config: method,
      why: 'config.json and weights are of different saves',
      fix: 'fetch or save the checkpoint again',
    });
  if (format === 'int8' || (format === method && nested === stated.bnb4bitUseDoubleQuant)) return stated;
  const name = (type: string | null, double: boolean) => `${type}${double ? ' with' : ' without'} double quantization`;
  const says = name(method, stated.bnb4bitUseDoubleQuant);
  warnings.push(`quantization_config says ${says}, the weights are ${name(format, nested)}: taken as stored`);
  return stated.with({ bnb4bitQuantType: format, bnb4bitUseDoubleQuant: nested });
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
  const found = formatOf(layers);
  const warnings: string[] = [];
  if (!found) {
    if (stated)
      warnings.push(`quantization_config says ${label(stated)}, but no weight is quantized: the model counts as dense`);
    return { config: undefined, warnings };
  }
  if (stated?.quantMethod !== 'bitsandbytes' || !stated.isQuantizable) {
    if (stated && stated.quantMethod !== 'bitsandbytes')
      throw new CheckpointError(
        op,
        `config.json says ${stated.quantMethod}, the weights are ${found.format} of bitsandbytes`,
        {
          tensor: `${found.module}.weight`,
          why: 'config.json and weights are of different saves',
        },
      );
    return { config: derive(found, request, warnings), warnings };
  }
  const config = withFormat(stated, found, warnings);
  return { config: withSkippedModules(config, request, warnings), warnings };
}
