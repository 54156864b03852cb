export * from './options.js';
export * from './cache.js';
export * from './engine.js';
export * from './forward.js';
export * from './score.js';
export { StopStrings, TextStream } from './text.js';
export { assertFits, assertTokenIds } from './requests.js';
export { StepReader } from './steps.js';
export {
  passInto,
  passOver,
  passOverPairs,
  passThrough,
  type CachedSlice,
  type PairStates,
  type PassExtras,
  type SourceSlice,
} from './pass.js';
