// config.json beside the tensors: what the tensors say wins.
import { checkJsonBounds, pythonJson, QError, WEIGHT_FORMAT_KEYS, type QuantizationConfig } from '@q/config';
import {
  loadDummy,
  loadParameters,
  openCheckpoint,
  parsePythonJson,
  quantizerFor,
  surveyWeights,
  type Checkpoint,
  type WeightSurvey,
} from '@q/loader';
import {
  architectureOf,
  assertLayersStored,
  buildModel,
  parseModelConfig,
  slotsOf,
  taskOf,
  type ModelConfig,
  type Task,
} from '@q/models';
import { isFloat, type Backend, type FloatDType, type ParameterSlot } from '@q/tensor';
import type { LoadModelOptions } from './auto.js';
import { storedDType } from './dtypes.js';
import { readRequired } from './files.js';

/**
 * What config.json says; `unread`: why what it says of quantized weights is nothing that Q knows, and then `config` is
 * without it.
 */
export interface StatedConfig {
  readonly config: ModelConfig;
  readonly unread?: QError;
}

type ConfigOptions = Pick<LoadModelOptions, 'ignoreConfigKeys' | 'signal'>;

/** The config of a model whose weights will tell whether a quantization that Q does not know is left over in it. */
export async function statedConfig(folder: string, options: ConfigOptions): Promise<StatedConfig> {
  const { ignoreConfigKeys = [], signal } = options;
  const text = await readRequired(folder, 'config.json', { signal });
  try {
    return { config: parseModelConfig(text, { ignoreConfigKeys }) };
  } catch (error) {
    if (!(error instanceof QError)) throw error;
    checkJsonBounds(text, 'config.json'); // it may be the first error, and nothing walks such a text
    const raw = parsePythonJson(text, 'config.json');
    if (typeof raw !== 'object' || raw === null) throw error;
    const rest = Object.fromEntries(Object.entries(raw).filter(([key]) => !WEIGHT_FORMAT_KEYS.includes(key)));
    if (Object.keys(rest).length === Object.keys(raw).length) throw error;
    const config = await Promise.resolve()
      .then(() => parseModelConfig(pythonJson(rest, { indent: 2 }), { ignoreConfigKeys }))
      .catch(() => {
        throw error; // something else is wrong as well
      });
    return { config, unread: error };
  }
}

/** A checkpoint, and the config that its tensors have: what they say wins over config.json. */
interface WeightSource extends AsyncDisposable {
  readonly checkpoint: Checkpoint;
  readonly survey: WeightSurvey;
  readonly config: ModelConfig;
  /** Dtype of the weights that are not quantized: what config.json says, else what the tensors have, as in Python. */
  readonly dtype: FloatDType;
}

/**
 * Opens a checkpoint and compares it with its config.
 * @param task what the model is loaded for; undefined: for what the class is that config.json names
 * @throws ConfigError for more layers than tensors; `unread` unless the weights show that what config.json says of
 *   quantization is left over; as surveyWeights
 */
export async function openWeights(
  { config: stated, unread }: StatedConfig,
  task: Task | undefined,
  folder: string,
  { signal, ignoreConfigKeys }: ConfigOptions,
  warnings: string[],
): Promise<WeightSource> {
  const facts = architectureOf(stated.modelType);
  const checkpoint = await openCheckpoint(folder, { signal });
  try {
    const { tensors, unsupported, absent } = checkpoint;
    assertLayersStored(stated, tensors.size + unsupported.size + absent.size);
    const slots = slotsOf(stated, buildModel(stated, task ?? taskOf(stated)));
    const survey = await surveyWeights(checkpoint, slots, {
      stored: stated.quantizationConfig ?? undefined,
      tied: { ...facts.tied, ...facts.alwaysTied },
      ignored: facts.ignoredTensors,
      keepDense: facts.keepDense,
      keepInFp32: facts.keepInFp32,
      basePrefix: facts.basePrefix,
      optionalModules: facts.optionalModules,
      signal,
    }).catch((error: unknown) => {
      throw unread ?? error;
    });
    if (unread && survey.quantization) throw unread;
    if (unread)
      warnings.push(`no weight is quantized: the model counts as dense, although config.json says: ${unread.message}`);
    for (const line of survey.warnings) warnings.push(line);
    const config = configOfWeights(stated, survey, ignoreConfigKeys);
    const dtype = storedDType(config, config.dtype === null ? dtypeOfTensors(checkpoint, slots, survey) : undefined);
    return { checkpoint, survey, config, dtype, [Symbol.asyncDispose]: () => checkpoint.close() };
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

/** The float dtype of the first parameter that no quantization touches. */
function dtypeOfTensors(
  checkpoint: Checkpoint,
  slots: readonly ParameterSlot[],
  { stored }: WeightSurvey,
): FloatDType | undefined {
  for (const { kind, name } of slots) {
    const dtype = kind === 'tensor' ? checkpoint.tensors.get(stored.get(name)?.name ?? '')?.dtype : undefined;
    if (dtype !== undefined && isFloat(dtype)) return dtype;
  }
  return undefined;
}

/** The config with quantization and ties as the tensors have them; the same object when it was right about them. */
function configOfWeights(
  stated: ModelConfig,
  { quantization, untied }: WeightSurvey,
  ignoreConfigKeys: readonly string[] = [],
): ModelConfig {
  const requantized = (quantization ?? null) !== stated.quantizationConfig;
  const { tied } = architectureOf(stated.modelType);
  const isUntied = [...untied].some((name) => Object.hasOwn(tied, name));
  if (!requantized && !isUntied) return stated;
  const text = stated.toText({
    ...(requantized && { quantizationConfig: quantization ?? null }),
    ...(isUntied && { tieWordEmbeddings: false }),
  });
  return parseModelConfig(text, { ignoreConfigKeys });
}

type FillOptions = Pick<LoadModelOptions, 'signal' | 'onProgress' | 'checkFinite'> & {
  readonly backend: Backend;
  readonly dtype: FloatDType | undefined;
  /** What Python calls the model's dtype: that of `torchDtype`, else of the checkpoint. */
  readonly modelDType: FloatDType;
  readonly stored: QuantizationConfig | undefined;
  readonly wanted: QuantizationConfig | undefined;
};

/**
 * Fills the slots from the checkpoint, or with random weights when there is none.
 * @returns the slots as they were filled, which is how they are saved
 */
export async function fillWeights(
  slots: readonly ParameterSlot[],
  config: ModelConfig,
  source: WeightSource | undefined,
  { wanted, ...options }: FillOptions,
): Promise<readonly ParameterSlot[]> {
  const { keepDense, keepInFp32 } = architectureOf(config.modelType);
  const quantizer = wanted && quantizerFor(wanted, keepDense, keepInFp32);
  const { backend, dtype, modelDType, stored, signal, onProgress, checkFinite } = options;
  if (!source) {
    await loadDummy(slots, { backend, dtype: dtype ?? modelDType, modelDType, keepInFp32, quantizer, signal });
    return slots;
  }
  const { checkpoint, survey } = source;
  const loaded = await loadParameters(checkpoint, slots, {
    backend,
    dtype,
    modelDType,
    keepInFp32,
    quantizer,
    stored,
    survey,
    checkFinite,
    signal,
    onProgress,
  });
  return loaded.slots;
}
