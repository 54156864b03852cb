import { fileURLToPath } from 'node:url';

/** Folder with the model's files (`config.json`, `model.safetensors`, tokenizer), as `fromPretrained` takes it. */
export const nanoFolder = (): string => fileURLToPath(new URL('../model', import.meta.url));
