import {
  assertInteger,
  assertKnownKeys,
  assertSignal,
  ConfigError,
  describeValue,
  GenerationConfig,
  parseModelConfig,
  type ModelConfig,
  type QuantizationConfig,
} from '@q/config';
import { loadDummy, loadParameters, openCheckpoint, quantizerFor, skipWarnings, type LoadProgress } from '@q/loader';
import { architectureOf, buildModel, parameterSlots } from '@q/models';
import type { ParameterSlot } from '@q/tensor';
import { openDevice } from './device.js';
import { activationDType, cacheDType, floatDType, storedDType } from './dtypes.js';
import { hubOptionNames, modelFolder, readOptional, readRequired, type HubOptions } from './files.js';
import { CausalModel } from './model.js';
import { assertModelConfig, placeOnOne, type PlacementOptions } from './placement.js';
import { quantizationFor, type QuantizationOptions } from './quantization.js';
import { tokenizerOfModel } from './tokenizer/load.js';

/** How intermediate results are rounded. */
export const numericsModes = ['fused', 'eager'] as const;
export type Numerics = (typeof numericsModes)[number];

export interface LoadModelOptions extends HubOptions, QuantizationOptions, PlacementOptions {
  /**
   * Dtype of the dense weights: `float32`, `float16`, `bfloat16`, or `auto` for what the checkpoint has. Default
   * `auto`.
   */
  readonly torchDtype?: string;
  /** `dummy` fills random weights of the right shapes and formats instead of reading any. Default `auto`. */
  readonly loadFormat?: 'auto' | 'dummy';
  /** Dtype of cached keys and values. Default: the activation dtype. */
  readonly kvCacheDtype?: string;
  /**
   * `fused`: the device's fused operators, which round a result once (on the CPU not at all: it computes in float32).
   * `eager`: the steps of the unfused Python model one by one, each rounded to the model's dtype (`torchDtype`, or what
   * the checkpoint says), for comparison with Python; several times slower, and LLM.int8 rows depend on their batch as
   * they do there. In float32 it rounds nothing. Default `fused`.
   */
  readonly numerics?: Numerics;
  /** CPU threads. Default: the physical cores. */
  readonly threads?: number;
  /** Most sequences that decode together. Default 32. */
  readonly maxBatchSize?: number;
  /**
   * Look at the result of every layer and report the first that holds a NaN or an infinity, as a NumericsError of what
   * is awaited next: for finding a damaged weight, slow. Default false.
   */
  readonly checkFinite?: boolean;
  /** Keys to read config.json without; `rope_scaling.alpha` names one inside an object. */
  readonly ignoreConfigKeys?: readonly string[];
  readonly onProgress?: (progress: LoadProgress) => void;
}

export const loadOptionNames = [
  ...hubOptionNames,
  'loadIn8bit',
  'loadIn4bit',
  'quantizationConfig',
  'torchDtype',
  'deviceMap',
  'maxMemory',
  'loadFormat',
  'kvCacheDtype',
  'numerics',
  'threads',
  'maxBatchSize',
  'checkFinite',
  'ignoreConfigKeys',
  'onProgress',
] as const;

/** Reads configurations. */
export const AutoConfig = {
  /** @throws CheckpointError without config.json; ConfigError and UnsupportedError for what it says. */
  async fromPretrained(
    idOrPath: string,
    options: HubOptions & { readonly ignoreConfigKeys?: readonly string[] } = {},
  ): Promise<ModelConfig> {
    assertKnownKeys('AutoConfig.fromPretrained', options, [...hubOptionNames, 'ignoreConfigKeys']);
    return configOf(await modelFolder(idOrPath, { ...options, files: 'config' }), options.ignoreConfigKeys);
  },
};

async function configOf(folder: string, ignoreConfigKeys: readonly string[] = []): Promise<ModelConfig> {
  return parseModelConfig(await readRequired(folder, 'config.json'), { ignoreConfigKeys });
}

/** Loads causal language models. */
export const AutoModelForCausalLM = {
  /**
   * Loads a model, quantizing it on the way when asked.
   * @param idOrPath folder, Hub id, or `@q/nano`
   * @throws CheckpointError for damaged or incomplete files, ConfigError for options, UnsupportedError for
   *   architectures, OutOfMemoryError; the signal's reason on abort. Nothing stays allocated then.
   */
  async fromPretrained(idOrPath: string, options: LoadModelOptions = {}): Promise<CausalModel> {
    checkLoadOptions('AutoModelForCausalLM.fromPretrained', options);
    const warnings: string[] = [];
    const folder = await modelFolder(idOrPath, {
      ...options,
      files: options.loadFormat === 'dummy' ? 'settings' : 'model',
      onWarning: (line) => {
        warnings.push(line);
        options.onWarning?.(line);
      },
    });
    return loadModel(await configOf(folder, options.ignoreConfigKeys), folder, options, warnings);
  },

  /** A model of a config with random weights (`loadFormat: 'dummy'`), for measuring. */
  async fromConfig(config: ModelConfig, options: Omit<LoadModelOptions, 'loadFormat'> = {}): Promise<CausalModel> {
    checkLoadOptions('AutoModelForCausalLM.fromConfig', options);
    assertModelConfig('fromConfig', config);
    return loadModel(config, undefined, { ...options, loadFormat: 'dummy' });
  },
};

/** What can be told before anything is read. @throws ConfigError */
function checkLoadOptions(op: string, options: LoadModelOptions): void {
  assertKnownKeys(op, options, loadOptionNames);
  const { maxBatchSize, threads, checkFinite, signal } = options;
  if (maxBatchSize !== undefined) assertInteger('fromPretrained', 'maxBatchSize', maxBatchSize);
  if (threads !== undefined) assertInteger('fromPretrained', 'threads', threads);
  assertSignal('fromPretrained', signal);
  if (checkFinite !== undefined && typeof checkFinite !== 'boolean')
    throw new ConfigError('fromPretrained', `checkFinite is ${describeValue(checkFinite)}`, {
      fix: 'give true or false',
    });
}

async function loadModel(
  config: ModelConfig,
  folder: string | undefined,
  options: LoadModelOptions,
  warningsOfHub: readonly string[] = [],
): Promise<CausalModel> {
  const { signal, loadFormat = 'auto', numerics = 'fused' } = options;
  const warnings = [...warningsOfHub, ...config.warnings.map(({ message }) => message)];
  if (loadFormat !== 'auto' && loadFormat !== 'dummy')
    throw new ConfigError('fromPretrained', `loadFormat is "${String(loadFormat)}"`, { fix: 'use "auto" or "dummy"' });
  if (!numericsModes.includes(numerics))
    throw new ConfigError('fromPretrained', `numerics is "${String(numerics)}"`, {
      fix: `use ${numericsModes.map((mode) => `"${mode}"`).join(' or ')}`,
    });
  const { stored, wanted, ...quantization } = quantizationFor(config, options);
  warnings.push(...quantization.warnings);
  const architecture = architectureOf(config.modelType);
  const { tokenizer, problem } = await tokenizerOfModel(folder, warnings, { signal });
  const generationConfig = await generationConfigOf(folder, config);
  warnings.push(...generationWarnings(generationConfig));
  const dtype = floatDType('torchDtype', options.torchDtype ?? 'auto');
  const device = await placeOnOne(config, {
    deviceMap: options.deviceMap,
    maxMemory: options.maxMemory,
    torchDtype: options.torchDtype,
    loadIn8bit: options.loadIn8bit,
    loadIn4bit: options.loadIn4bit,
    quantizationConfig: options.quantizationConfig,
  });
  const backend = openDevice(device, {
    threads: options.threads,
    eager: numerics === 'eager' ? (dtype ?? storedDType(config)) : undefined,
    checkFinite: options.checkFinite,
  });
  const model = buildModel(config);
  try {
    const slots = parameterSlots(model, config.tieWordEmbeddings ? architecture.tied : {});
    const quantizer = wanted && quantizerFor(wanted, architecture.keepDense);
    warnings.push(...withoutEffect(wanted, slots));
    const activations = activationDType(backend.caps.activationDtypes, dtype ?? storedDType(config));
    // A GPU multiplies in the activation dtype, so dense weights have it too; the CPU takes any.
    const weights = device === 'cpu' ? dtype : activations;
    if (loadFormat === 'dummy')
      await loadDummy(slots, { backend, dtype: weights ?? storedDType(config), quantizer, signal });
    else {
      await using checkpoint = await openCheckpoint(folder!, { signal });
      await loadParameters(checkpoint, slots, {
        backend,
        dtype: weights,
        quantizer,
        stored,
        ignored: architecture.ignoredTensors,
        signal,
        onProgress: options.onProgress,
        onWarning: (line) => warnings.push(line),
      });
    }
    const kvDtype = floatDType('kvCacheDtype', options.kvCacheDtype ?? 'auto');
    // In eager LLM.int8 a row depends on the others of its pass, and Python runs prompts whole.
    const engine = {
      dtype: activations,
      kvDtype: cacheDType(kvDtype, activations),
      maxBatchSize: options.maxBatchSize,
      prefillChunk: numerics === 'eager' ? Infinity : undefined,
    };
    return new CausalModel({
      config,
      generationConfig,
      tokenizer,
      tokenizerProblem: problem,
      backend,
      model,
      slots,
      quantizationConfig: stored ?? wanted,
      engine,
      folder,
      warnings,
    });
  } catch (error) {
    model.dispose();
    await backend.close();
    throw error;
  }
}

/** Modules to skip that are none: an option of the caller without effect, so Node's own warning says it as well. */
function withoutEffect(wanted: QuantizationConfig | undefined, slots: readonly ParameterSlot[]): string[] {
  const lines = skipWarnings(wanted, slots);
  for (const line of lines) process.emitWarning(line, { code: 'Q_SKIP_MODULES' });
  return lines;
}

/** Keys that were passed over, and values that will be refused; what merely has no effect is not worth a line here. */
const generationWarnings = ({ warnings }: GenerationConfig): string[] =>
  warnings.filter(({ code }) => code === 'unknown_key' || code === 'invalid').map(({ message }) => message);

/** generation_config.json, or what config.json says of special tokens. */
async function generationConfigOf(folder: string | undefined, config: ModelConfig): Promise<GenerationConfig> {
  const text = folder === undefined ? undefined : await readOptional(folder, 'generation_config.json');
  if (text !== undefined) return GenerationConfig.fromJSON(text);
  const { bos, eos, pad } = config.tokenIds;
  return new GenerationConfig({
    ...(bos.length > 0 && { bosTokenId: bos[0] }),
    ...(eos.length > 0 && { eosTokenId: [...eos] }),
    ...(pad !== null && { padTokenId: pad }),
  });
}
