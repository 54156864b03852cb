export type { StoredWeight, WeightFields, WeightFormat } from './format.js';
export * from './registry.js';
export { denseWeight, type DenseWeight } from './dense/dense.js';
export {
  bnb4BlockSizes,
  bnb4Bytes,
  codebooks,
  dequantizeBnb4,
  dynamicMap,
  nestedBlockSize,
  quantizeBnb4,
  type Bnb4Options,
  type Bnb4Weight,
  type NestedAbsmax,
} from './bnb4/bnb4.js';
export { dequantizeInt8, int8Bytes, quantizeInt8, type Int8Weight } from './int8/int8.js';
