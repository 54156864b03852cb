import type { Tokenizer } from '../tokenizer.js';
import type { Json } from '../section.js';
export async function convertVocabulary(_folder: string, _name: string, _files: { config: Json }, _signal?: AbortSignal): Promise<Tokenizer | undefined> { return undefined; }
