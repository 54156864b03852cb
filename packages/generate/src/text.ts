import type { TokenDecoder } from './options.js';

const incomplete = '\ufffd';

/**
 * Text of a growing list of ids, in pieces that never split a character: a piece is held back while it ends in a
 * replacement character, which may still become a whole one, or while the decoder says that its last id is partial.
 */
export class TextStream {
  #ids: number[] = [];
  /**
   * Ids before this index only give context, so that a decoder which trims a leading space sees the same start each
   * time.
   */
  #context = 0;
  /** Ids before this index have been returned as text. */
  #done = 0;

  constructor(
    private readonly decoder: TokenDecoder,
    private readonly skipSpecialTokens = true,
  ) {}

  /** The text that the id makes certain. */
  push(id: number): string {
    this.#ids.push(id);
    const text = this.#pending();
    if (text.endsWith(incomplete) || text === '' || this.decoder.isPartial?.(id)) return '';
    this.#context = this.#done;
    this.#done = this.#ids.length;
    return text;
  }

  /** What is left, whole or not. */
  end(): string {
    const text = this.#pending();
    this.#done = this.#ids.length;
    return text;
  }

  #pending(): string {
    const options = { skipSpecialTokens: this.skipSpecialTokens };
    const before = this.decoder.decode(this.#ids.slice(this.#context, this.#done), options);
    return this.decoder.decode(this.#ids.slice(this.#context), options).slice(before.length);
  }
}

/** Finds stop strings in streamed text and holds back what may become one. */
export class StopStrings {
  #held = '';

  constructor(private readonly stops: readonly string[]) {}

  /** The text that is safe to show, and whether a stop string was met: the text then ends before it. */
  push(piece: string): { text: string; stopped: boolean } {
    if (this.stops.length === 0) return { text: piece, stopped: false };
    this.#held += piece;
    const found = this.stops.map((stop) => this.#held.indexOf(stop)).filter((at) => at >= 0);
    if (found.length > 0) return { text: this.#held.slice(0, Math.min(...found)), stopped: true };
    const keep = this.#longestStart();
    const text = this.#held.slice(0, this.#held.length - keep);
    this.#held = this.#held.slice(this.#held.length - keep);
    return { text, stopped: false };
  }

  end(): string {
    return this.#held;
  }

  /** Length of the longest end of the held text that begins a stop string. */
  #longestStart(): number {
    const most = Math.min(this.#held.length, Math.max(...this.stops.map((stop) => stop.length - 1)));
    for (let length = most; length > 0; length--) {
      const tail = this.#held.slice(this.#held.length - length);
      if (this.stops.some((stop) => stop.startsWith(tail))) return length;
    }
    return 0;
  }
}
