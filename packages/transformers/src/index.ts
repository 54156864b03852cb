export {
  AutoConfig,
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForSeq2SeqLM,
  type AutoModelClass,
  numericsModes,
  type LoadModelOptions,
  type Numerics,
} from './auto.js';
export { AutoTokenizer, type TokenizerLoadOptions } from './tokenizer/load.js';
export { Tokenizer } from './tokenizer/tokenizer.js';
export type { DecodeOptions, EncodeOptions, PadOptions } from './tokenizer/options.js';
export type { PaddedBatch } from './tokenizer/padding.js';
export { tokenizerLimits, type TokenizerLimits } from './limits.js';
export type { ChatMessage, ChatOptions, ChatTemplateOptions, ContentPart, TemplateLimits } from './chat/options.js';
export { CausalModel } from './causal-model.js';
export type { LanguageModel, LanguageModelOutput } from './language-model.js';
export { Seq2SeqModel, type Seq2SeqInput, type Seq2SeqOutput } from './seq2seq-model.js';
export type { ForwardInput } from './forward-input.js';
export { ModelOutput } from './model-output.js';
export { PretrainedModel, type QuantizationSummary, type SaveOptions } from './model.js';
export { Generation, type GenerationResult } from './generation.js';
export type { GenerateInput, GenerateOptions, Seq2SeqGenerateOptions } from './generation-options.js';
export {
  cudaCompiler,
  freeMemory,
  listDevices,
  measureCpuCeilings,
  openDevice,
  type DeviceOptions,
  type DeviceReport,
} from './device.js';
export { modelFolder, type HubOptions } from './files.js';
export { planFor, type PlanFolderOptions } from './planning.js';
export type { PlanOptions } from './placement.js';
export {
  describeMessage,
  formatSize,
  parseSize,
  planPlacement,
  PlanRefusedError,
  renderBars,
  type Budgets,
  type Plan,
} from '@q/device-map';
export * from '@q/config';
export * from '@q/generate';
export * from '@q/loader';
export * from '@q/models';
export { nanoFolder } from '@q/nano';
export { addonCandidates } from '@q/kernels-cpu';
/** Tensors and the ops on them, under their own name: `tensor.linear(...)`. */
export * as tensor from '@q/tensor';
export type { Backend, DType, DriverInfo, FloatDType, MemoryStats, Tensor } from '@q/tensor';
