import type { FinishReason, GenerationRequest, GenerationStep, TokenDecoder } from './options.js';
import { StopStrings, TextStream } from './text.js';

/** A request on its way: its tokens, its cache blocks and its text. */
export class Sequence {
  readonly newIds: number[] = [];
  blocks: number[] = [];
  /** Prompt tokens already in the cache. */
  prefilled = 0;
  finishReason: FinishReason | undefined;
  readonly #text: TextStream | undefined;
  readonly #stops: StopStrings;

  constructor(
    readonly index: number,
    readonly request: GenerationRequest,
    decoder: TokenDecoder | undefined,
  ) {
    this.#text = decoder && new TextStream(decoder);
    this.#stops = new StopStrings(request.stopStrings);
  }

  /** Most tokens that the cache must hold; the last new token is never run. */
  get capacity(): number {
    return this.request.ids.length + this.request.maxNewTokens;
  }

  /** Tokens in the cache after the last new token has been run. */
  get length(): number {
    return this.request.ids.length + this.newIds.length;
  }

  /** Takes the next token and says what it means for the text. */
  accept(tokenId: number): GenerationStep {
    const { eosTokenIds, maxNewTokens } = this.request;
    const index = this.newIds.length;
    this.newIds.push(tokenId);
    const ended = eosTokenIds.includes(tokenId);
    const { text, stopped } = this.#stops.push(this.#text?.push(tokenId) ?? '');
    if (stopped) this.finishReason = 'stop';
    else if (ended) this.finishReason = 'eos';
    else if (this.newIds.length >= maxNewTokens) this.finishReason = 'length';
    if (!this.finishReason) return { sequence: this.index, index, tokenId, text };
    return {
      sequence: this.index,
      index,
      tokenId,
      text: stopped ? text : text + this.#rest(),
      finishReason: this.finishReason,
    };
  }

  /** Text still held back when the sequence ends. */
  #rest(): string {
    const { text, stopped } = this.#stops.push(this.#text?.end() ?? '');
    if (!stopped) return text + this.#stops.end();
    this.finishReason = 'stop';
    return text;
  }
}
