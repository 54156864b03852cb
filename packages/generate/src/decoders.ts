import { kvBlockSize, type CausalLM } from '@q/models';
import type { Backend, FloatDType } from '@q/tensor';
import type { KvCache } from './cache.js';
import { Decoder, needsHistory } from './decoder.js';
import type { Sequence } from './sequence.js';

/**
 * Rounds a context up, so that requests of similar length share a recorded program; attention skips what is not there.
 */
const roundContext = (tokens: number): number => {
  const step = Math.max(kvBlockSize, 2 ** Math.floor(Math.log2(tokens) - 2));
  return Math.ceil(tokens / step) * step;
};

/**
 * The recorded programs of an engine, by batch size and context bound; made when first needed, kept until the cache
 * changes.
 */
export class Decoders {
  readonly #made = new Map<string, Decoder>();

  constructor(
    private readonly model: CausalLM,
    private readonly backend: Backend,
    private readonly dtype: FloatDType,
  ) {}

  /** A decoder with the sequences put in. */
  start(sequences: readonly Sequence[], cache: KvCache, most: { tokens: number; sourceTokens: number }): Decoder {
    const maxContext = roundContext(most.tokens);
    const maxSource = most.sourceTokens > 0 ? roundContext(most.sourceTokens) : 0;
    const withHistory = needsHistory(sequences);
    const key = `${sequences.length} ${maxContext} ${maxSource} ${withHistory}`;
    let decoder = this.#made.get(key);
    if (!decoder) {
      decoder = new Decoder(this.model, this.backend, {
        count: sequences.length,
        maxBlocks: maxContext / kvBlockSize,
        maxContext,
        withHistory,
        maxSource,
        cache,
        dtype: this.dtype,
      });
      this.#made.set(key, decoder);
    }
    decoder.start(sequences);
    return decoder;
  }

  dispose(): void {
    for (const decoder of this.#made.values()) decoder.dispose();
    this.#made.clear();
  }
}
