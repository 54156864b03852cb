export * from './safetensors/header.js';
export { openSafetensors, type SafetensorsFile } from './safetensors/file.js';
export { specBytes, type TensorSpec } from './safetensors/serialize.js';
export { Checkpoint, openCheckpoint, type OpenCheckpointOptions, type CheckpointReadOptions } from './checkpoint.js';
export { hasCheckpoint } from './locate.js';
export { readShardIndex, type ShardIndex } from './shard-index.js';
export { parseJsonObject, readJsonObject, readText } from './json-file.js';
export { readOptionalFile, readSmallFile, type FileIdentity, type SmallFileOptions } from './small-file.js';
/** Every limit on what files may ask for. */
export * as loaderLimits from './limits.js';
/** The writer of `@q/config`, beside its reader. */
export { PythonFloat, pythonJson, pythonJsonFile, type PythonJsonOptions } from '@q/config';
export { parsePythonJson } from './write/python-json-parse.js';
export { parseByteSize } from './write/size.js';
export { planShards, type PlanOptions, type ShardPlan } from './write/plan.js';
export {
  SafetensorsWriter,
  writerDefaults,
  type SafetensorsWriterOptions,
  type TensorProducer,
  type WriteProgress,
} from './write/writer.js';
export { checkNoSaveIsOpen } from './write/staging.js';
export type {
  CheckpointFormat,
  Description,
  FormatConfig,
  StoredBase,
  StoredLayer,
  TensorLookup,
  WeightReader,
} from './formats/format.js';
export {
  checkpointFormats,
  formatAsked,
  formatOfStored,
  formatOfWeight,
  helperOwner,
  recogniseWeight,
  type StoredWeight,
} from './formats/registry.js';
export type { StoredDense } from './formats/dense/dense.js';
export * from './formats/bnb4/names.js';
export { formatQuantState, parseQuantState, type QuantState } from './formats/bnb4/quant-state.js';
export { checkNestedQuantMap, checkQuantMap, codeBook4bit, dynamicCodeBook } from './formats/bnb4/code-books.js';
export { check4bitSizes, read4bitState, type StoredBnb4bit } from './formats/bnb4/recognise.js';
export { bnbInt8Names, type BnbInt8Names } from './formats/int8/names.js';
export { checkWeightFormat, type StoredBnbInt8 } from './formats/int8/recognise.js';
export { checkScales } from './formats/bitsandbytes/parts.js';
export { compareKeys, type KeyComparison } from './keys.js';
export {
  inspectCheckpoint,
  type CheckpointReport,
  type DTypeTotal,
  type ModuleReport,
  type ParameterReport,
} from './inspect.js';
export * from './weights/quantize.js';
export * from './weights/load.js';
export { surveyWeights, type SurveyOptions, type WeightSurvey } from './weights/survey.js';
export { matchNames, type MatchRequest, type NameMatch, type StoredTensorInfo } from './weights/match-names.js';
export { decideQuantization, type QuantizationRequest } from './weights/stored-quantization.js';
export * from './weights/dummy.js';
export * from './weights/save.js';
export { resolveModelFolder, type ResolveModelOptions } from './hub/resolve.js';
export type { DownloadProgress } from './hub/download.js';
export type { ModelFiles } from './hub/file-sets.js';
export { hubLimits, type HubLimits } from './limits.js';
export { hubEnvironment, type HubEnvironment, type ProxySettings } from './hub/env.js';
