import { NumericsError } from '@q/config';
import type { FinishReason, GenerationRequest, GenerationStep, TokenDecoder } from './options.js';
import type { SourceBlocks } from './pass.js';
import { specialText, StopStrings, TextStream } from './text.js';

/** A request on its way: its tokens, its cache blocks and its text. */
export class Sequence {
  readonly newIds: number[] = [];
  blocks: number[] = [];
  /** Blocks of what its decoder reads of the encoder. */
  sourceBlocks: number[] = [];
  /** Prompt tokens already in the cache. */
  prefilled = 0;
  finishReason: FinishReason | undefined;
  readonly #text: TextStream | undefined;
  readonly #stops: StopStrings;

  constructor(
    readonly index: number,
    readonly request: GenerationRequest,
    private readonly decoder: TokenDecoder | undefined,
  ) {
    // The token with which a decoder starts is no text.
    this.#text = decoder && new TextStream(decoder, request.encoderIds ? request.ids.slice(1) : request.ids);
    this.#stops = new StopStrings(request.stopStrings);
  }

  /** Most tokens that the cache must hold; the last new token is never run. */
  get capacity(): number {
    return this.request.ids.length + this.request.maxNewTokens;
  }

  /** Tokens that the encoder reads; 0 without one. */
  get sourceLength(): number {
    return this.request.encoderIds?.length ?? 0;
  }

  /** What its decoder reads of the encoder; undefined without one. */
  get source(): SourceBlocks | undefined {
    return this.request.encoderIds && { blocks: this.sourceBlocks, length: this.sourceLength };
  }

  /** Tokens in the cache after the last new token has been run. */
  get length(): number {
    return this.request.ids.length + this.newIds.length;
  }

  /**
   * Takes the next token and says what it means for the text.
   * @throws NumericsError for -1, which the device gives where the logits are no numbers
   */
  accept(likeliest: number): GenerationStep {
    const index = this.newIds.length;
    if (likeliest < 0) throw notFinite(index, this.index);
    const { forcedLastTokenId, maxNewTokens } = this.request;
    const tokenId = index === maxNewTokens - 1 ? (forcedLastTokenId ?? likeliest) : likeliest;
    this.newIds.push(tokenId);
    const { text, stopped } = this.#textOf(tokenId);
    this.finishReason = this.#reason(tokenId, stopped);
    if (!this.finishReason) return { sequence: this.index, index, tokenId, text };
    return {
      sequence: this.index,
      index,
      tokenId,
      text: stopped ? text : text + this.#rest(),
      finishReason: this.finishReason,
    };
  }

  #reason(tokenId: number, stopped: boolean): FinishReason | undefined {
    const { eosTokenIds, maxNewTokens } = this.request;
    if (stopped) return 'stop';
    if (eosTokenIds.includes(tokenId)) return 'eos';
    return this.newIds.length >= maxNewTokens ? 'length' : undefined;
  }

  #textOf(tokenId: number): { text: string; stopped: boolean } {
    if (!this.decoder || !this.#text) return { text: '', stopped: false };
    const piece = this.#text.push(tokenId);
    const special =
      piece === '' && this.request.stopStrings.length > 0 ? specialText(this.decoder, tokenId) : undefined;
    return special === undefined ? this.#stops.push(piece) : this.#stops.push(special, { hidden: true });
  }

  /** Text still held back when the sequence ends. */
  #rest(): string {
    const { text, stopped } = this.#stops.push(this.#text?.end() ?? '');
    if (!stopped) return text + this.#stops.end();
    this.finishReason = 'stop';
    return text;
  }
}

const notFinite = (step: number, sequence: number): NumericsError =>
  new NumericsError('generate', `the logits of step ${step} of sequence ${sequence} are not finite`, {
    why: 'a weight is damaged, or a value outgrew its dtype',
    fix: 'load with checkFinite: true to find the first layer; in float16, try torchDtype "bfloat16" or "float32"',
  });
