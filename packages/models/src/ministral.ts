// Ministral 8B (Mistral AI 2024). Source followed: transformers' MinistralConfig. Against Llama: no biases, and layers
// slide where layer_types says; without it all do unless sliding_window is null; a file without that key means 4096.
import { mistralConfig } from './mistral.js';
import { llamaFamily } from './shared/llama-family.js';

export const ministral = llamaFamily(mistralConfig('ministral'), 'Ministral');
