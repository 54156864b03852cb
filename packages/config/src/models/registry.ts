import { llama } from './llama.js';
import { mistral } from './mistral.js';
import { qwen2 } from './qwen2.js';

/** Every architecture, one row each; the key is `model_type`. */
export const models = Object.freeze({ llama, mistral, qwen2 });
