export * from './dtype.js';
export * from './core/device.js';
export * from './core/half.js';
export * from './core/tensor.js';
export * from './core/backend.js';
export * from './core/segments.js';
export * from './core/slots.js';
export * from './driver/driver.js';
export * from './driver/schema.js';
export { commandCodes, decode, encode } from './driver/encode.js';
export { abiHash, nativeHeader } from './driver/header.js';
export type { Lowering } from './lowering/lowering.js';
export { fused } from './lowering/fused.js';
export { eager } from './lowering/eager.js';
export { concatColumns, embedding, scatterRows, selectRows, type ColumnPart } from './ops/rows.js';
export * from './ops/linear.js';
export * from './ops/experts.js';
export * from './ops/norm.js';
export {
  headNorm,
  queryKeyParts,
  type HeadNormOptions,
  type HeadNormPart,
  type QueryKeyWeights,
} from './ops/head-norm.js';
export * from './ops/attention.js';
export * from './ops/elementwise.js';
export * from './ops/sampling.js';
export * from './ops/finite.js';
export * from './formats/index.js';
export { ReferenceDriver, referenceBackend } from './reference/driver.js';
