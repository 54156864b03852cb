export * from './safetensors/header.js';
export { openSafetensors, type SafetensorsFile } from './safetensors/file.js';
