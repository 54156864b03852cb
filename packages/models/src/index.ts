export * from './architecture.js';
export * from './model.js';
export * from './nn/attention.js';
export * from './nn/module.js';
export * from './nn/linear.js';
export * from './nn/relative-bias.js';
export * from './nn/layers.js';
export * from './nn/rope.js';
export { runLayers } from './nn/run-layers.js';
export * from './pass/blocks.js';
export { Derived } from './pass/derived.js';
export * from './pass/pack.js';
export type { Encoded, LayerKeys, Pass, State } from './pass/pass.js';
export {
  architectureOf,
  assertLayersStored,
  buildModel,
  MODEL_TYPES,
  parseModelConfig,
  slotsOf,
  taskOf,
  tasksOf,
  tiesOf,
  type ModelConfig,
  type ModelType,
} from './registry.js';
export type { Activation } from './shared/activation.js';
export type { DecoderConfig, LayerType } from './shared/decoder-config.js';
export { parameterSlots } from './slots.js';
export { keyValueShapes, stateBytes, stateElements, type StateSize } from './state.js';
export { bufferBytes, moduleTree, planTree, type ModelTree } from './tree.js';
