/** How the next token is chosen. */
export interface SamplingOptions {
  readonly doSample: boolean;
  /** Divides the logits; below 1e-5 the likeliest token is taken. Default 1. */
  readonly temperature: number;
  /** Keep the k most likely tokens; 0 keeps all. */
  readonly topK: number;
  /** Keep the most likely tokens whose probabilities reach p; 1 keeps all. */
  readonly topP: number;
  /** Drop tokens less likely than p times the most likely one; 0 drops none. */
  readonly minP: number;
  /** Divides positive and multiplies negative logits of tokens already present (Keskar et al. 2019). Default 1. */
  readonly repetitionPenalty: number;
  /** Non-negative integer below 2^53. The same seed, prompt and options give the same tokens, whatever the batch. */
  readonly seed: number;
}

/** One prompt to continue. */
export interface GenerationRequest {
  /** What is continued; of an encoder-decoder what its decoder begins with. */
  readonly ids: readonly number[];
  /**
   * What the encoder of an encoder-decoder reads. Requests of a call that have the same list, not only equal ones,
   * share what it makes of it.
   */
  readonly encoderIds?: readonly number[];
  /** Taken as first new token whatever the logits say. Default none. */
  readonly forcedFirstTokenId?: number;
  /** Taken as the last new token where `maxNewTokens` end the text. Default none. */
  readonly forcedLastTokenId?: number;
  readonly maxNewTokens: number;
  readonly eosTokenIds: readonly number[];
  /** No empty ones. They may be or hold special tokens. */
  readonly stopStrings: readonly string[];
  readonly sampling: SamplingOptions;
}

export type FinishReason = 'eos' | 'stop' | 'length';

/** Turns ids into text. */
export interface TokenDecoder {
  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string;
  /** Whether ids that follow can change the text of this one (a byte of a character). Default: never. */
  isPartial?(id: number): boolean;
}

/** Time and memory of a generation. */
export interface GenerationStats {
  readonly promptTokens: number;
  readonly newTokens: number;
  readonly prefillMs: number;
  readonly decodeMs: number;
  /** Prompt tokens per second of prefill. */
  readonly prefillTokensPerSecond: number;
  /** Tokens per second after the first of each sequence. */
  readonly decodeTokensPerSecond: number;
  /** Most bytes of tensors on the device. */
  readonly peakBytes: number;
}

/** One generated token. */
export interface GenerationStep {
  /** Which prompt it continues. */
  readonly sequence: number;
  /** How many tokens of this sequence were generated before. */
  readonly index: number;
  readonly tokenId: number;
  /**
   * Text that became certain with this token: whole characters only, so it can be empty. The decoded prompt and the
   * texts of a sequence together are what all its ids decode to. Empty without a tokenizer.
   */
  readonly text: string;
  /** Set on the last token of the sequence. */
  readonly finishReason?: FinishReason;
  /** Set on the last token of the last sequence. */
  readonly stats?: GenerationStats;
}
