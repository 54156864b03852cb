import { ConfigError, readModelConfig, UnsupportedError, type ConfigOf, type ModelConfigOptions } from '@q/config';
import type { ParameterSlot } from '@q/tensor';
import type { Architecture, LayerCounts, Task, TaskModels } from './architecture.js';
import { bart } from './bart.js';
import { bert } from './bert.js';
import { blenderbotSmall } from './blenderbot-small.js';
import { bloom } from './bloom.js';
import { cohere } from './cohere.js';
import { cohere2 } from './cohere2.js';
import { deepseekV3 } from './deepseek_v3.js';
import { falcon } from './falcon.js';
import { gemma } from './gemma.js';
import { gemma2 } from './gemma2.js';
import { gemma3Text } from './gemma3_text.js';
import { glm4 } from './glm4.js';
import { gpt2 } from './gpt2.js';
import { gptBigCode } from './gpt_bigcode.js';
import { gptOss } from './gpt_oss.js';
import { gptNeox } from './gpt_neox.js';
import { gptj } from './gptj.js';
import { granite } from './granite.js';
import { llama } from './llama.js';
import { m2m100 } from './m2m_100.js';
import { marian } from './marian.js';
import { mbart } from './mbart.js';
import { ministral } from './ministral.js';
import { ministral3 } from './ministral3.js';
import { mistral } from './mistral.js';
import { mixtral } from './mixtral.js';
import { mpt } from './mpt.js';
import { mt5 } from './mt5.js';
import type { Module } from './nn/module.js';
import { olmo2 } from './olmo2.js';
import { opt } from './opt.js';
import { pegasus } from './pegasus.js';
import { phi } from './phi.js';
import { phi3 } from './phi3.js';
import { qwen2 } from './qwen2.js';
import { qwen2Moe } from './qwen2_moe.js';
import { qwen3 } from './qwen3.js';
import { qwen3Moe } from './qwen3_moe.js';
import { stablelm } from './stablelm.js';
import { parameterSlots } from './slots.js';
import { smollm3 } from './smollm3.js';
import { starcoder2 } from './starcoder2.js';
import { t5 } from './t5.js';
import { umt5 } from './umt5.js';
import { xglm } from './xglm.js';

/** Every architecture, one row each; the key is `model_type`. */
const architectures = {
  bart,
  bert,
  'blenderbot-small': blenderbotSmall,
  bloom,
  cohere,
  cohere2,
  deepseek_v3: deepseekV3,
  falcon,
  gemma,
  gemma2,
  gemma3_text: gemma3Text,
  glm4,
  gpt2,
  gpt_bigcode: gptBigCode,
  gpt_neox: gptNeox,
  gpt_oss: gptOss,
  gptj,
  granite,
  llama,
  m2m_100: m2m100,
  marian,
  mbart,
  ministral,
  ministral3,
  mistral,
  mixtral,
  mpt,
  mt5,
  olmo2,
  opt,
  pegasus,
  phi,
  phi3,
  qwen2,
  qwen2_moe: qwen2Moe,
  qwen3,
  qwen3_moe: qwen3Moe,
  smollm3,
  stablelm,
  starcoder2,
  t5,
  umt5,
  xglm,
};

type Registry = typeof architectures;

/** The `model_type`s that Q reads. */
export type ModelType = keyof Registry;

/** A parsed `config.json`; `modelType` tells which architecture. */
export type ModelConfig = { [K in ModelType]: ConfigOf<Registry[K]['config']> }[ModelType];

export const MODEL_TYPES: readonly ModelType[] = Object.freeze(Object.keys(architectures) as ModelType[]);

const definitions = Object.fromEntries(Object.entries(architectures).map(([type, { config }]) => [type, config])) as {
  [K in ModelType]: Registry[K]['config'];
};

/**
 * Reads a model's `config.json`, as an object or (better, since `1.0` and `1` differ on disk) as text. Missing keys
 * have the defaults of the Python class. Unknown keys that may change the maths are errors, others are passed over with
 * a line in `warnings`. Both the transformers 5 form and the older one give equal configs.
 * @throws ConfigError for implausible, unknown or contradicting settings; UnsupportedError for an unknown `model_type`
 *   (listing the known ones), for weights that another program quantized, and for settings that Q does not compute;
 *   DTypeError for an unknown dtype
 */
export const parseModelConfig = (json: unknown, options: ModelConfigOptions = {}): ModelConfig =>
  readModelConfig(definitions, json, options);

/** The architecture of a `model_type`. @throws UnsupportedError that lists the known ones. */
export function architectureOf(modelType: string): Architecture {
  if (Object.hasOwn(architectures, modelType)) return architectures[modelType as ModelType];
  throw new UnsupportedError('model', `architecture "${modelType}" is not known`, {
    fix: `known: ${MODEL_TYPES.join(', ')}`,
  });
}

/** What a config's model can be built for: what most checkpoints of its architecture are, first. */
export const tasksOf = (config: ModelConfig): readonly Task[] => architectureOf(config.modelType).tasks(config);

/**
 * The task of the Python class that the config names, of which the weights are; where it names none that is here, the
 * one that most checkpoints of its architecture are for.
 */
export function taskOf(config: ModelConfig): Task {
  const [usual, ...others] = tasksOf(config);
  const [named] = config.architectures;
  if (named === undefined) return usual;
  return others.find((task) => buildModel(config, task).className === named) ?? usual;
}

/** Parameters that share memory in models of a config: target to source. */
export function tiesOf({ modelType, tieWordEmbeddings }: ModelConfig): Readonly<Record<string, string>> {
  const { tied, alwaysTied } = architectureOf(modelType);
  return { ...(tieWordEmbeddings && tied), ...alwaysTied };
}

/**
 * An empty model of the config's architecture; a loader fills its {@link slotsOf}.
 * @param without optional modules of the architecture that it is to lack
 * @throws UnsupportedError for a task that the architecture has no model for
 */
export const buildModel = <T extends Task>(config: ModelConfig, task: T, without?: readonly string[]): TaskModels[T] =>
  architectureOf(config.modelType).build(task, config, without);

/** What a loader must fill of a model that {@link buildModel} made, and where files of this architecture keep it. */
export const slotsOf = (config: ModelConfig, model: Module): ParameterSlot[] =>
  parameterSlots(model, tiesOf(config), (parameter) => architectureOf(config.modelType).sources(parameter, config));

/**
 * Compares the layers of a config with the tensors of a checkpoint before a tree of them is built: a config of a few
 * bytes is not to make ten thousand layers.
 * @throws ConfigError for more layers than tensors
 */
export function assertLayersStored(config: ModelConfig, tensors: number): void {
  const { numLayers, numDecoderLayers = 0 }: LayerCounts = config;
  const layers = numLayers + numDecoderLayers;
  if (layers <= tensors) return;
  throw new ConfigError('config', `config.json says ${layers} layers, and the checkpoint has ${tensors} tensors`, {
    modelType: config.modelType,
    why: 'each layer has tensors of its own: config.json and the weights belong to different models',
    fix: 'fetch the config.json of these weights, or correct its number of layers',
  });
}
