/**
 * What a tokenizer of a stranger may cost, at most. Real files stay far below every number; what is above is refused
 * with an error that names the limit.
 */
export const tokenizerLimits = {
  /** Bytes of tokenizer.json, tokenizer.model, vocab.json or merges.txt. The largest published ones have 35 MB. */
  vocabularyFileBytes: 256 << 20,
  /** Bytes of tokenizer_config.json and the other small files. The largest published ones have a few MB. */
  configFileBytes: 32 << 20,
  /** Heap of the thread that parses a large tokenizer.json, in MB: nested lists take 30 times their text. */
  parserHeapMegabytes: 4096,
  /** Objects and lists inside each other. Published files have 8; recursion over them must not end the stack. */
  depth: 64,
  /** Normalizers, pre-tokenizers, post-processors and decoders together. Published files have a dozen. */
  components: 256,
  /** Tokens and pieces. The largest published vocabulary has 0.3 million. */
  tokens: 1 << 23,
  /** Highest token id: tables are indexed by id. */
  tokenId: (1 << 24) - 1,
  /** Characters of a regular expression; published ones have a few hundred. Translating one takes memory. */
  patternLength: 1 << 16,
  /**
   * Milliseconds that encoding or decoding a text may take, whatever its length: a regular expression of exponential
   * time or a token of a million letters would otherwise hold the event loop for ever.
   */
  textMilliseconds: 10_000,
  /** Further milliseconds for each million characters; a slow machine needs about 1,000 for ordinary text. */
  textMillisecondsPerMillion: 10_000,
  /** Characters that a normalizer may make of one; the longest real one (Unicode's U+FDFA) makes 18 of one. */
  growth: 64,
  /** Characters of text that growth is always allowed to reach. */
  growthFrom: 1 << 20,
  /**
   * Texts up to this length (in UTF-16 units) and with patterns known to be harmless are encoded without a clock, whose
   * thread costs 0.1 to 0.4 ms: quadratic work on them stays in milliseconds.
   */
  unwatchedLength: 2048,
} as const;
