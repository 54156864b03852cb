export * from './model.js';
export * from './llama.js';
export * from './nn/module.js';
export * from './nn/linear.js';
export * from './nn/layers.js';
export * from './nn/rope.js';
