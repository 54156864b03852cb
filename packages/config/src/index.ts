export * from './errors.js';
export { assertInteger, assertSignal, describeValue } from './checks.js';
export { assertKnownKeys, didYouMean, nearest } from './names.js';
export { DTYPE_NAMES, dtypeBytes, isDTypeName, parseDType, type DTypeName } from './dtype.js';
export {
  toPythonJson,
  type ConfigWarning,
  type JsonObject,
  type JsonValue,
  type ReadOptions,
  type TextOptions,
} from './json.js';
export type { ConfigObject } from './fields.js';
export { BitsAndBytesConfig, type BitsAndBytesOptions, type ComputeDType, type QuantStorage } from './bitsandbytes.js';
export { GPTQConfig, type GPTQOptions } from './gptq.js';
export { parseQuantizationConfig, QUANT_METHODS, type QuantizationConfig } from './quantization.js';
export { GenerationConfig, mergeGenerationConfig } from './generation.js';
export {
  GENERATION_DEFAULTS,
  GENERATION_OPTION_NAMES,
  type GenerationOptionName,
  type GenerationOptions,
  type ResolvedGenerationOptions,
} from './generation-fields.js';
export { maxContext } from './max-context.js';
export { ROPE_TYPES, type RopeConfig, type RopeType } from './rope.js';
export type { Activation, DecoderConfig, LayerType } from './models/definition.js';
export {
  MODEL_TYPES,
  parseModelConfig,
  type ConfigChanges,
  type ModelConfig,
  type ModelConfigBase,
  type ModelConfigOptions,
  type ModelType,
} from './model-config.js';
