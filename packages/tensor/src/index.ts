export * from './dtype.js';
export * from './driver/driver.js';
export * from './driver/schema.js';
export { commandCodes, encode } from './driver/encode.js';
export { abiHash, nativeHeader } from './driver/header.js';
