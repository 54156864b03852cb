import {
  assertCallback,
  assertInteger,
  assertKnownKeys,
  assertSignal,
  ConfigError,
  describeValue,
  GenerationConfig,
  UnsupportedError,
  type QuantizationConfig,
} from '@q/config';
import { skipWarnings, type LoadProgress } from '@q/loader';
import {
  buildModel,
  parseModelConfig,
  slotsOf,
  tasksOf,
  type ModelConfig,
  type Task,
  type TaskModels,
} from '@q/models';
import type { FloatDType, ParameterSlot } from '@q/tensor';
import { openDevice } from './device.js';
import { tokenizerLimitsWith, type TokenizerLimits } from './limits.js';
import { activationDType, cacheDType, floatDType, storedDType } from './dtypes.js';
import { hubOptionNames, modelFolder, readOptional, readRequired, type HubOptions } from './files.js';
import { CausalModel } from './causal-model.js';
import { Seq2SeqModel } from './seq2seq-model.js';
import { PretrainedModel, type ModelParts } from './model.js';
import { assertModelConfig, placeOnOne, type PlacementOptions } from './placement.js';
import { quantizationFor, type QuantizationOptions } from './quantization.js';
import { tokenizerOfModel } from './tokenizer/load.js';
import { fillWeights, openWeights, statedConfig, type StatedConfig } from './weight-source.js';

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
  /** Keys to read config.json without; `rope_scaling.alpha` names one inside an object. */
  readonly ignoreConfigKeys?: readonly string[];
  /** Other limits than {@link tokenizerLimits}: sizes, depths, times. `Infinity` means none. */
  readonly tokenizerLimits?: Partial<TokenizerLimits>;
  /**
   * Look for NaN and infinity. While loading at every weight: a tensor that holds one is refused by name; the files are
   * read twice. (Scales of quantized weights, and infinite weights that are to be quantized, are refused in any case.)
   * While computing at the result of every layer: the first that holds one is reported as a NumericsError of what is
   * awaited next. For finding damage; slow. Default false.
   */
  readonly checkFinite?: boolean;
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
  'ignoreConfigKeys',
  'tokenizerLimits',
  'checkFinite',
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
    return configOf(await modelFolder(idOrPath, { ...options, files: 'config' }), options);
  },
};

async function configOf(
  folder: string,
  { ignoreConfigKeys = [], signal }: Pick<LoadModelOptions, 'ignoreConfigKeys' | 'signal'>,
): Promise<ModelConfig> {
  return parseModelConfig(await readRequired(folder, 'config.json', { signal }), { ignoreConfigKeys });
}

/** Loads the models of one task. */
export interface AutoModelClass<M> {
  /**
   * Loads a model, quantizing it on the way when asked.
   * @param idOrPath folder, Hub id, or `@q/nano`
   * @throws CheckpointError for damaged or incomplete files, ConfigError for options, UnsupportedError for
   *   architectures and tasks, OutOfMemoryError; the signal's reason on abort. Nothing stays allocated then.
   */
  fromPretrained(idOrPath: string, options?: LoadModelOptions): Promise<M>;
  /** A model of a config with random weights (`loadFormat: 'dummy'`), for measuring. */
  fromConfig(config: ModelConfig, options?: Omit<LoadModelOptions, 'loadFormat'>): Promise<M>;
}

/** What a class loads, and what it makes of it. */
interface Kind<T extends Task, M> {
  readonly name: string;
  readonly task: T;
  readonly make: (parts: ModelParts<TaskModels[T]>) => M;
}

function autoClass<T extends Task, M>(kind: Kind<T, M>): AutoModelClass<M> {
  return {
    async fromPretrained(idOrPath, options = {}) {
      checkLoadOptions(`${kind.name}.fromPretrained`, options);
      const warnings: string[] = [];
      const folder = await modelFolder(idOrPath, {
        ...options,
        files: options.loadFormat === 'dummy' ? 'settings' : 'model',
        onWarning: (line) => {
          warnings.push(line);
          options.onWarning?.(line);
        },
      });
      const stated = await statedConfig(folder, options);
      assertTask(kind, stated.config);
      return loadModel(kind, stated, folder, options, warnings);
    },
    async fromConfig(config, options = {}) {
      checkLoadOptions(`${kind.name}.fromConfig`, options);
      assertModelConfig('fromConfig', config);
      assertTask(kind, config);
      return loadModel(kind, { config }, undefined, { ...options, loadFormat: 'dummy' });
    },
  };
}

/** The class that loads the models of a task. */
const classOf: Readonly<Record<Task, string>> = {
  base: 'AutoModel',
  causalLM: 'AutoModelForCausalLM',
  seq2seqLM: 'AutoModelForSeq2SeqLM',
};

/** @throws UnsupportedError that names the class to take instead */
function assertTask({ name, task }: Pick<Kind<Task, unknown>, 'name' | 'task'>, config: ModelConfig): void {
  const tasks = tasksOf(config);
  if (tasks.includes(task)) return;
  const [named = config.modelType] = config.architectures;
  throw new UnsupportedError(name, `${named} is no model of this class`, {
    fix: `use ${tasks.map((each) => classOf[each]).join(' or ')}`,
  });
}

/** Loads causal language models: they continue texts. */
export const AutoModelForCausalLM = autoClass({
  name: 'AutoModelForCausalLM',
  task: 'causalLM',
  make: (parts) => new CausalModel(parts),
});

/** Loads encoder-decoders: they write a text that follows from another one. */
export const AutoModelForSeq2SeqLM = autoClass({
  name: 'AutoModelForSeq2SeqLM',
  task: 'seq2seqLM',
  make: (parts) => new Seq2SeqModel(parts),
});

/** Loads models without a head: they give hidden states. */
export const AutoModel = autoClass({
  name: 'AutoModel',
  task: 'base',
  make: (parts) => new PretrainedModel(parts),
});

/** What can be told before anything is read. @throws ConfigError */
function checkLoadOptions(op: string, options: LoadModelOptions): void {
  const setting = Object.keys(options ?? {}).find((name) => /^(bnb4bit|llmInt8)[A-Z]/.test(name));
  if (setting !== undefined)
    throw new ConfigError(op, `${setting} is an option of quantizationConfig`, {
      fix: `give quantizationConfig: new BitsAndBytesConfig({ loadIn4bit: true, ${setting}: ... }), or loadIn8bit in it`,
    });
  assertKnownKeys(op, options, loadOptionNames);
  const { maxBatchSize, threads, checkFinite, signal, onProgress, onWarning } = options;
  tokenizerLimitsWith('fromPretrained', options.tokenizerLimits);
  if (maxBatchSize !== undefined) assertInteger('fromPretrained', 'maxBatchSize', maxBatchSize);
  if (threads !== undefined) assertInteger('fromPretrained', 'threads', threads);
  assertSignal('fromPretrained', signal);
  assertCallback('fromPretrained', 'onProgress', onProgress);
  assertCallback('fromPretrained', 'onWarning', onWarning);
  if (checkFinite !== undefined && typeof checkFinite !== 'boolean')
    throw new ConfigError('fromPretrained', `checkFinite is ${describeValue(checkFinite)}`, {
      fix: 'give true or false',
    });
}

/** The settings of a load that say nothing about placement, checked. */
interface LoadSettings {
  readonly dummy: boolean;
  readonly eager: boolean;
  readonly dtype: FloatDType | undefined;
  readonly kvDtype: FloatDType | undefined;
}

function checkSettings({ loadFormat = 'auto', numerics = 'fused', ...options }: LoadModelOptions): LoadSettings {
  if (loadFormat !== 'auto' && loadFormat !== 'dummy')
    throw new ConfigError('fromPretrained', `loadFormat is "${String(loadFormat)}"`, { fix: 'use "auto" or "dummy"' });
  if (!numericsModes.includes(numerics))
    throw new ConfigError('fromPretrained', `numerics is "${String(numerics)}"`, {
      fix: `use ${numericsModes.map((mode) => `"${mode}"`).join(' or ')}`,
    });
  return {
    dummy: loadFormat === 'dummy',
    eager: numerics === 'eager',
    dtype: floatDType('torchDtype', options.torchDtype ?? 'auto'),
    kvDtype: floatDType('kvCacheDtype', options.kvCacheDtype ?? 'auto'),
  };
}

/** config → survey of the weights → plan → backend → model → weights. */
async function loadModel<T extends Task, M>(
  { task, make }: Kind<T, M>,
  { config: stated, unread }: StatedConfig,
  folder: string | undefined,
  options: LoadModelOptions,
  warningsOfHub: readonly string[] = [],
): Promise<M> {
  const settings = checkSettings(options);
  const warnings = [...warningsOfHub, ...stated.warnings.map(({ message }) => message)];
  const settingsOfModel = await readSettings(folder, stated, warnings, options);
  if (unread && settings.dummy) throw unread;
  await using source = settings.dummy
    ? undefined
    : await openWeights({ config: stated, unread }, task, folder!, options, warnings);
  const config = source?.config ?? stated;
  const storedIn = source?.dtype ?? storedDType(config);
  const { stored, wanted, ...quantization } = quantizationFor(config, options);
  for (const line of quantization.warnings) warnings.push(line);
  const { deviceMap, maxMemory, torchDtype, loadIn8bit, loadIn4bit, quantizationConfig } = options;
  const placement = { deviceMap, maxMemory, torchDtype, loadIn8bit, loadIn4bit, quantizationConfig };
  const without = source?.survey.without;
  const device = await placeOnOne(config, placement, { storedIn, task, without });
  const backend = openDevice(device, {
    threads: options.threads,
    eager: settings.eager ? (settings.dtype ?? storedIn) : undefined,
    checkFinite: options.checkFinite,
  });
  const model = buildModel(config, task, without);
  try {
    const slots = slotsOf(config, model);
    const modelDType = settings.dtype ?? storedIn;
    const activations = activationDType(backend.caps.activationDtypes, modelDType);
    // A GPU is fast where weights have the dtype of the activations, so dense ones get it; the CPU takes any.
    const dtype = device === 'cpu' ? settings.dtype : activations;
    for (const line of withoutEffect(wanted, slots)) warnings.push(line);
    const weights = { ...options, backend, dtype, modelDType, stored, wanted };
    const filled = await fillWeights(slots, config, source, weights);
    return make({
      ...settingsOfModel,
      config,
      backend,
      model,
      slots: filled,
      quantizationConfig: stored ?? wanted,
      engine: {
        dtype: activations,
        kvDtype: cacheDType(settings.kvDtype, activations),
        maxBatchSize: options.maxBatchSize,
        // In eager LLM.int8 a row depends on the others of its pass, and Python runs prompts whole.
        prefillChunk: settings.eager ? Infinity : undefined,
      },
      folder,
      warnings,
    });
  } catch (error) {
    model.dispose();
    await backend.close();
    throw error;
  }
}

/** What a model's files say beside config.json and the weights. */
async function readSettings(
  folder: string | undefined,
  config: ModelConfig,
  warnings: string[],
  { signal, tokenizerLimits }: Pick<LoadModelOptions, 'signal' | 'tokenizerLimits'>,
): Promise<Pick<ModelParts, 'tokenizer' | 'tokenizerProblem' | 'generationConfig'>> {
  const { tokenizer, problem } = await tokenizerOfModel(folder, warnings, {
    signal,
    limits: tokenizerLimitsWith('fromPretrained', tokenizerLimits),
  });
  const generationConfig = await generationConfigOf(folder, config, signal);
  for (const line of generationWarnings(generationConfig)) warnings.push(line);
  return { tokenizer, tokenizerProblem: problem, generationConfig };
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
async function generationConfigOf(
  folder: string | undefined,
  config: ModelConfig,
  signal?: AbortSignal,
): Promise<GenerationConfig> {
  const text = folder === undefined ? undefined : await readOptional(folder, 'generation_config.json', { signal });
  if (text !== undefined) return GenerationConfig.fromJSON(text);
  const start = 'decoderStartTokenId' in config ? config.decoderStartTokenId : null;
  const forcedBosTokenId = 'forcedBosTokenId' in config ? config.forcedBosTokenId : null;
  const forcedEosTokenId = 'forcedEosTokenId' in config ? config.forcedEosTokenId : null;
  const { bos, eos, pad } = config.tokenIds;
  return new GenerationConfig({
    ...(bos.length > 0 && { bosTokenId: bos[0] }),
    ...(eos.length > 0 && { eosTokenId: [...eos] }),
    ...(pad !== null && { padTokenId: pad }),
    ...(start !== null && { decoderStartTokenId: start }),
    ...(forcedBosTokenId !== null && { forcedBosTokenId }),
    ...(forcedEosTokenId !== null && { forcedEosTokenId: [forcedEosTokenId].flat() }),
  });
}
