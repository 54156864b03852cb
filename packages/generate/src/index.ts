export * from './options.js';
export * from './cache.js';
export * from './engine.js';
export * from './forward.js';
export { StopStrings, TextStream } from './text.js';
export { assertFits, assertTokenIds } from './requests.js';
export { StepReader } from './steps.js';
export { passInto, passOver, passThrough, type CachedSlice, type PassExtras, type SourceSlice } from './pass.js';
