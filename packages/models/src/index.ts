export * from './model.js';
export { LlamaForCausalLM, llama, mistral, qwen2 } from './llama.js';
export * from './nn/module.js';
export * from './nn/linear.js';
export * from './nn/layers.js';
export * from './nn/rope.js';
export { architectureOf, buildModel } from './registry.js';
export { parameterSlots } from './slots.js';
export { bufferBytes, moduleTree, planTree, type ModelTree } from './tree.js';
