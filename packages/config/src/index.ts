export * from './errors.js';
export { WEIGHT_FORMAT_KEYS } from './foreign.js';
export { assertCallback, assertInteger, assertSignal, describeValue } from './checks.js';
export * from './limits.js';
export { printable } from './printable.js';
export { assertKnownKeys, didYouMean, nearest } from './names.js';
export { DTYPE_NAMES, dtypeBytes, ELEMENT_TYPES, isDTypeName, parseDType, type DTypeName } from './dtype.js';
export {
  checkJsonBounds,
  isPlainObject,
  parseConfigText,
  jsonStringEnd,
  parseJsonText,
  toPythonJson,
  type ConfigWarning,
  type JsonObject,
  type JsonValue,
  type ReadOptions,
  type TextOptions,
} from './json.js';
export {
  compareCodePoints,
  pythonFloat,
  PythonFloat,
  pythonJson,
  pythonJsonFile,
  type PythonJsonOptions,
} from './python-json.js';
export { ACCELERATE_SIZES, HUB_SIZES, parseSizeText, type SizeRules } from './size.js';
export { show, validate, type ConfigObject, type OptionSource } from './fields.js';
export { skipRule, unmatchedLine, type SkipRule } from './skip.js';
export { BitsAndBytesConfig, type BitsAndBytesOptions, type ComputeDType, type QuantStorage } from './bitsandbytes.js';
export { GPTQConfig, type GPTQOptions } from './gptq.js';
export {
  methodNotLoadable,
  parseQuantizationConfig,
  QUANT_METHODS,
  quantizationMethodOf,
  type QuantizationConfig,
} from './quantization.js';
export { GenerationConfig, mergeGenerationConfig } from './generation.js';
export { DEFAULT_NEW_TOKENS, newTokensFor, type LengthLimit } from './generation-length.js';
export {
  BEAM_OPTIONS,
  GENERATION_DEFAULTS,
  GENERATION_OPTION_NAMES,
  SAMPLING_OPTIONS,
  TOKEN_NEUTRAL_OPTIONS,
  type GenerationOptionName,
  type GenerationOptions,
  type ResolvedGenerationOptions,
} from './generation-fields.js';
export { checkKeys, type KnownKeys } from './keys.js';
export { maxContext } from './max-context.js';
export { readRope, ROPE_KEYS, ROPE_TYPES, type RopeConfig, type RopeContext, type RopeType } from './rope.js';
export { defineModel, type ModelDefinition, type ReadContext } from './model-definition.js';
export {
  readModelConfig,
  type ConfigChanges,
  type ConfigOf,
  type ModelConfigBase,
  type ModelConfigOptions,
} from './model-config.js';
/** Readers of single keys of a configuration file, with their messages. */
export * as schema from './schema.js';
