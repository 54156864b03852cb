import { readModelConfig, UnsupportedError, type ConfigOf, type ModelConfigOptions } from '@q/config';
import type { ParameterSlot } from '@q/tensor';
import type { Architecture, Task, TaskModels } from './architecture.js';
import { bert } from './bert.js';
import { bloom } from './bloom.js';
import { cohere } from './cohere.js';
import { cohere2 } from './cohere2.js';
import { falcon } from './falcon.js';
import { gptBigCode } from './gpt_bigcode.js';
import { gpt2 } from './gpt2.js';
import { gptOss } from './gpt_oss.js';
import { gptNeox } from './gpt_neox.js';
import { gptj } from './gptj.js';
import { llama } from './llama.js';
import { mistral } from './mistral.js';
import { mixtral } from './mixtral.js';
import { mpt } from './mpt.js';
import type { Module } from './nn/module.js';
import { opt } from './opt.js';
import { phi } from './phi.js';
import { qwen2 } from './qwen2.js';
import { qwen2Moe } from './qwen2_moe.js';
import { qwen3Moe } from './qwen3_moe.js';
import { stablelm } from './stablelm.js';
import { parameterSlots } from './slots.js';
import { t5 } from './t5.js';
import { xglm } from './xglm.js';

/** Every architecture, one row each; the key is `model_type`. */
const architectures = {
  bert,
  bloom,
  cohere,
  cohere2,
  falcon,
  gpt2,
  gpt_bigcode: gptBigCode,
  gpt_neox: gptNeox,
  gpt_oss: gptOss,
  gptj,
  llama,
  mistral,
  mixtral,
  mpt,
  opt,
  phi,
  qwen2,
  qwen2_moe: qwen2Moe,
  qwen3_moe: qwen3Moe,
  stablelm,
  t5,
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

/** The task that most checkpoints of a config's architecture are for. */
export const taskOf = ({ modelType }: ModelConfig): Task => architectureOf(modelType).tasks[0];

/** Parameters that share memory in models of a config: target to source. */
export function tiesOf({ modelType, tieWordEmbeddings }: ModelConfig): Readonly<Record<string, string>> {
  const { tied, alwaysTied } = architectureOf(modelType);
  return { ...(tieWordEmbeddings && tied), ...alwaysTied };
}

/**
 * An empty model of the config's architecture; a loader fills its {@link slotsOf}.
 * @throws UnsupportedError for a task that the architecture has no model for
 */
export const buildModel = <T extends Task>(config: ModelConfig, task: T): TaskModels[T] =>
  architectureOf(config.modelType).build(task, config);

/** What a loader must fill of a model that {@link buildModel} made, and where files of this architecture keep it. */
export const slotsOf = (config: ModelConfig, model: Module): ParameterSlot[] =>
  parameterSlots(model, tiesOf(config), (parameter) => architectureOf(config.modelType).sources(parameter, config));
