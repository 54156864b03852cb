import type { TokenDecoder } from './options.js';

const incomplete = '\ufffd';

/** A character of UTF-8 has at most this many bytes. */
const characterBytes = 4;

/** The window of ids that are decoded together is cut to 8 when it grows beyond this many. */
const longWindow = 32;

const visible = { skipSpecialTokens: true };

/** What a special token is spelled as; undefined for a token that is none. */
export function specialText(decoder: TokenDecoder, id: number): string | undefined {
  if (decoder.decode([id], visible) !== '') return undefined;
  return decoder.decode([id], { skipSpecialTokens: false }) || undefined;
}

/**
 * The end of a prompt that is enough to decode what follows it: it shows something, so that a decoder which trims a
 * leading space trims it there, and it begins at no byte of a character.
 */
function tailOf(decoder: TokenDecoder, prompt: readonly number[]): number[] {
  for (let length = 8; ; length *= 2) {
    let start = Math.max(prompt.length - length, 0);
    while (start > 0 && decoder.isPartial?.(prompt[start])) start -= 1;
    const tail = prompt.slice(start);
    if (start === 0 || /[^\ufffd]/.test(decoder.decode(tail, visible))) return tail;
  }
}

const commonStart = (a: string, b: string): string => {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length += 1;
  return a.slice(0, length);
};

/**
 * Text of a growing list of ids behind a prompt, in pieces that never split a character: prompt and pieces together are
 * what all ids decode to, without special tokens. A piece is held back while it ends in a replacement character, which
 * may still become a whole one, or while the decoder says that its last id is partial; bytes that cannot become a
 * character any more are given out as replacement characters.
 */
export class TextStream {
  /** The last ids: some that are given out already, as context, and those that are held back. */
  #window: number[];
  /** How many ids of the window are given out. */
  #done: number;
  /** The text of the window that is given out. */
  #shown: string;
  /** Whether nothing came after the prompt yet. */
  #fresh = true;
  /** The window ends in a run of bytes that is no text, whatever follows: more of it changes nothing before. */
  #broken = false;

  constructor(
    private readonly decoder: TokenDecoder,
    prompt: readonly number[] = [],
  ) {
    this.#window = tailOf(decoder, prompt);
    this.#done = this.#window.length;
    this.#shown = this.#text();
  }

  /** The text that the id makes certain. */
  push(id: number): string {
    if (this.#done < this.#window.length && specialText(this.decoder, id) !== undefined) return '';
    if (this.#broken && this.decoder.isPartial?.(id))
      return this.decoder.decode([...this.#window, id], visible).slice(this.#shown.length);
    this.#window.push(id);
    const text = this.#text();
    const settled = this.#settled(text, id);
    const piece = text.slice(this.#shownOf(text), settled);
    if (piece === '') return '';
    this.#fresh = false;
    if (settled === text.length) this.#advance(text);
    else this.#hold(text.slice(0, settled));
    return piece;
  }

  /** What is left, whole or not. */
  end(): string {
    const text = this.#text();
    const rest = text.slice(this.#shownOf(text));
    this.#advance(text);
    return rest;
  }

  /** How much of the text was shown; the first new ids may complete the last character of the prompt. */
  #shownOf(text: string): number {
    return this.#fresh ? commonStart(this.#shown, text).length : this.#shown.length;
  }

  /** How much of the window's text no later id can change. */
  #settled(text: string, last: number): number {
    this.#broken = this.decoder.isPartial?.(last) === true && this.#isBroken();
    if (this.decoder.isPartial?.(last)) return this.#broken ? text.length : 0;
    return text.endsWith(incomplete) ? text.length - 1 : text.length;
  }

  /** Whether the bytes at the end are no text even without the last three, which may wait for more of a character. */
  #isBroken(): boolean {
    let start = this.#window.length;
    while (start > 0 && this.decoder.isPartial?.(this.#window[start - 1])) start -= 1;
    const run = this.#window.slice(start);
    if (run.length < characterBytes) return false;
    return Array.from({ length: characterBytes }, (_, cut) => run.slice(0, run.length - cut)).every((part) =>
      this.decoder.decode(part, visible).includes(incomplete),
    );
  }

  /** Everything is given out. The ids since the last time stay as context; a broken run must stay whole. */
  #advance(text: string): void {
    if (!this.#broken) this.#window.splice(0, this.#done);
    this.#shown = this.#broken ? text : this.#text();
    this.#done = this.#window.length;
  }

  /** All but a character that may become whole is given out. */
  #hold(shown: string): void {
    this.#shown = shown;
    if (this.#window.length <= longWindow) return;
    const short = this.#window.slice(-2 * characterBytes);
    const text = this.decoder.decode(short, visible);
    if (!text.endsWith(incomplete)) return;
    [this.#window, this.#done, this.#shown] = [short, 0, text.slice(0, -1)];
  }

  #text(): string {
    return this.decoder.decode(this.#window, visible);
  }
}

/**
 * Finds stop strings in streamed text and holds back what may become one. Special tokens belong to the text that is
 * searched, not to the text that is shown.
 */
export class StopStrings {
  #held = '';
  /** For each character of the held text `v` when it is shown and `h` when it is hidden. */
  #kinds = '';

  /** @param stops no empty ones */
  constructor(private readonly stops: readonly string[]) {}

  /** The text that is safe to show, and whether a stop string was met: the text then ends before it. */
  push(piece: string, { hidden = false } = {}): { text: string; stopped: boolean } {
    if (this.stops.length === 0) return { text: hidden ? '' : piece, stopped: false };
    this.#held += piece;
    this.#kinds += (hidden ? 'h' : 'v').repeat(piece.length);
    const found = this.stops.map((stop) => this.#held.indexOf(stop)).filter((at) => at >= 0);
    if (found.length > 0) return { text: this.#take(found.reduce((first, at) => Math.min(first, at))), stopped: true };
    return { text: this.#take(this.#held.length - this.#longestStart()), stopped: false };
  }

  end(): string {
    return this.#take(this.#held.length);
  }

  /** Lets the first characters go and returns those of them that are shown. */
  #take(length: number): string {
    const [text, kinds] = [this.#held.slice(0, length), this.#kinds.slice(0, length)];
    this.#held = this.#held.slice(length);
    this.#kinds = this.#kinds.slice(length);
    return kinds.includes('h') ? text.replace(/[^]/g, (unit, at: number) => (kinds[at] === 'v' ? unit : '')) : text;
  }

  /** Length of the longest end of the held text that begins a stop string. */
  #longestStart(): number {
    const longest = this.stops.reduce((most, stop) => Math.max(most, stop.length), 0);
    const most = Math.min(this.#held.length, longest - 1);
    for (let length = most; length > 0; length--) {
      const tail = this.#held.slice(this.#held.length - length);
      if (this.stops.some((stop) => stop.startsWith(tail))) return length;
    }
    return 0;
  }
}
