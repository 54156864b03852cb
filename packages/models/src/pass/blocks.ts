/** Tokens per block of keys and values. */
export const kvBlockSize = 32;

/** Blocks that so many tokens need. */
export const blocksFor = (tokens: number): number => Math.ceil(tokens / kvBlockSize);
