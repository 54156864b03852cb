// What a file from a stranger may ask of this machine. Every limit of the package is here, with its reason; the README
// lists them.

/** Longest safetensors header in bytes: the limit of the safetensors library. Half a million tensors fit. */
export const maxHeaderBytes = 100_000_000;

/** Longest JSON or text file in bytes: an index of a million tensors is about this long. `maxBytes` raises it. */
export const maxJsonBytes = 100_000_000;

/**
 * Longest config.json, generation_config.json, tokenizer_config.json, chat template and the like in bytes. Real ones
 * stay below 1 MB (tokenizer_config.json with a thousand added tokens); they are parsed on the main thread.
 */
export const maxConfigBytes = 16_000_000;

/** Longest tokenizer.json, vocabulary or merges file in bytes. The largest published ones have about 35 MB. */
export const maxTokenizerBytes = 256_000_000;

/** Deepest nesting of a JSON file: configs reach 6; code that walks deeper values would exhaust the stack. */
export const maxJsonDepth = 100;

/** Most dimensions of a tensor: torch has 64. */
export const maxRank = 64;

/** Longest quantization state of a 4-bit weight in bytes: bitsandbytes writes about 150. */
export const maxQuantStateBytes = 4096;

/** Bytes that one read call asks for: an abort waits for at most this much. */
export const readChunkBytes = 16 * 1024 * 1024;

/** Names that a message or a warning lists before it says how many more there are. */
export const maxListedNames = 5;
