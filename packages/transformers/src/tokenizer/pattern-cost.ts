// Whether a regular expression backtracks so little that short texts need no clock: at most the square of the text's
// length. Reads the common part of Oniguruma's syntax; what it does not read counts as costly.

interface Element {
  /** Matches any number of characters, itself or inside. */
  readonly unbounded: boolean;
  /** May match nothing, or a varying count: each doubles what backtracking tries. */
  readonly varies: boolean;
  /** Never fails: nothing before it is tried again because of it. */
  readonly neverFails: boolean;
}

/** Longest counted repetition that is not taken as unbounded. */
const smallCount = 64;

/** Elements of one alternative that may vary: 2 to this power ways at each place of the text. */
const mostVarying = 4;

class Costly extends Error {}

class Scanner {
  #at = 0;

  constructor(readonly source: string) {}

  /** Alternatives up to the end or a closing parenthesis. */
  alternatives(depth: number): { varies: boolean; unbounded: boolean } {
    if (depth > 8) throw new Costly();
    let count = 0;
    let unbounded = false;
    let varies = false;
    do {
      const elements: Element[] = [];
      while (this.#at < this.source.length && !'|)'.includes(this.source[this.#at]))
        elements.push(this.#element(depth));
      checkAlternative(elements);
      unbounded ||= elements.some((element) => element.unbounded);
      varies ||= elements.some((element) => element.varies);
      count++;
    } while (this.#take('|'));
    return { varies: varies || count > 1, unbounded };
  }

  get done(): boolean {
    return this.#at >= this.source.length;
  }

  #take(text: string): boolean {
    const found = this.source.startsWith(text, this.#at);
    if (found) this.#at += text.length;
    return found;
  }

  #element(depth: number): Element {
    const group = this.source[this.#at] === '(';
    const inner = group ? this.#group(depth) : this.#atom();
    const [min, max] = this.#quantifier();
    const repeated = max > 1;
    if (inner.composed && repeated) throw new Costly();
    return {
      unbounded: inner.unbounded || max > smallCount,
      varies: min !== max || inner.composed,
      neverFails: min === 0,
    };
  }

  #group(depth: number): { composed: boolean; unbounded: boolean } {
    const open = /\((?:\?(?:i?:|=|!|>))?/y;
    open.lastIndex = this.#at;
    const opening = open.exec(this.source)![0];
    this.#at += opening.length;
    if (this.source[this.#at] === '?') throw new Costly(); // look-behind, names, conditions, calls
    const { unbounded, varies } = this.alternatives(depth + 1);
    if (!this.#take(')') || unbounded) throw new Costly();
    return { composed: varies, unbounded };
  }

  #atom(): { composed: boolean; unbounded: boolean } {
    const simple = /\\(?:[pP]\{[^{}]*\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[^0-9kgGKRXyYOxupP])|[^\\[\](){}*+?|]/uy;
    simple.lastIndex = this.#at;
    const match = simple.exec(this.source);
    if (match) this.#at += match[0].length;
    else if (this.source[this.#at] === '[') this.#characterClass();
    else throw new Costly();
    return { composed: false, unbounded: false };
  }

  #characterClass(): void {
    let depth = 0;
    do {
      const char = this.source[this.#at];
      if (char === undefined || depth > 8) throw new Costly();
      if (char === '\\') this.#at++;
      else if (char === '[') {
        depth++;
        if (this.source[this.#at + 1] === '^') this.#at++;
        if (this.source[this.#at + 1] === ']') this.#at++;
      } else if (char === ']') depth--;
      this.#at++;
    } while (depth > 0);
  }

  #quantifier(): [min: number, max: number] {
    const quantifier = /(?:([*+?])|\{(\d*)(?:(,)(\d*))?\})([?+])?/y;
    quantifier.lastIndex = this.#at;
    const match = quantifier.exec(this.source);
    if (!match) return [1, 1];
    this.#at += match[0].length;
    if (/[*+?{]/.test(this.source[this.#at] ?? '')) throw new Costly();
    const [, sign, least, comma, most] = match;
    if (sign !== undefined) return [sign === '+' ? 1 : 0, sign === '?' ? 1 : Infinity];
    const min = Number(least);
    if (comma === undefined) return [min, min];
    return [min, most ? Number(most) : Infinity];
  }
}

function checkAlternative(elements: readonly Element[]): void {
  const rest = [...elements];
  while (rest.at(-1)?.neverFails) rest.pop();
  if (rest.at(-1)?.unbounded) rest.pop(); // the last that can fail is not tried again
  if (rest.filter(({ unbounded }) => unbounded).length > 1) throw new Costly();
  if (rest.filter(({ varies }) => varies).length > mostVarying) throw new Costly();
}

/** Whether matching takes at most about the square of the text's length. False when in doubt. */
export function backtracksLittle(source: string): boolean {
  const scanner = new Scanner(source);
  try {
    scanner.alternatives(0);
    return scanner.done;
  } catch (error) {
    if (error instanceof Costly) return false;
    throw error;
  }
}
