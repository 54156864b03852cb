// Tokens beside the model's vocabulary, found in a text before anything else: special ones, and words that somebody
// added. As the tokenizers library does it: those that are not `normalized` are looked for in the text as it is, then
// each part between them is normalized and searched for the others.
import type { Vocabulary } from './model/vocabulary.js';
import type { Normalizer } from './normalizers.js';
import type { Section } from './section.js';
import { TokenFinder } from './token-finder.js';

export interface AddedToken {
  readonly content: string;
  /** Only where no letter or digit stands beside it. */
  readonly singleWord: boolean;
  /** Takes the white space before it. */
  readonly lstrip: boolean;
  /** Takes the white space behind it. */
  readonly rstrip: boolean;
  /** Looked for in the normalized text. */
  readonly normalized: boolean;
  /** Left out of texts with `skipSpecialTokens`. */
  readonly special: boolean;
}

/** A part of a text: an added token's id, or text for the model. */
export interface TextPart {
  readonly text: string;
  readonly id?: number;
  /** Where it begins in the text that was searched. */
  readonly start: number;
  /** How many of its first UTF-16 units stem from the first character of the caller's text. */
  readonly fromOrigin: number;
}

export const addedTokenOf = (section: Section, special = section.boolean('special', false)): AddedToken => ({
  content: section.string('content'),
  singleWord: section.boolean('single_word', false),
  lstrip: section.boolean('lstrip', false),
  rstrip: section.boolean('rstrip', false),
  normalized: section.boolean('normalized', !special),
  special,
});

/** A special token of which only the text is known. */
export const specialToken = (content: string): AddedToken => ({
  content,
  singleWord: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});

export const sameToken = (a: AddedToken, b: AddedToken): boolean =>
  a.content === b.content &&
  a.singleWord === b.singleWord &&
  a.lstrip === b.lstrip &&
  a.rstrip === b.rstrip &&
  a.normalized === b.normalized &&
  a.special === b.special;

const wordAtEnd = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d]$/u;
const wordAtStart = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d]/u;
const isSpace = /\p{White_Space}/u;

export class AddedTokens {
  readonly #ids = new Map<string, number>();
  readonly #tokens = new Map<number, AddedToken>();
  /** What each is in a decoded text: those that are looked for in normalized text have been normalized themselves. */
  readonly #texts = new Map<number, string>();
  readonly #special = new Set<string>();
  #highest = -1;
  #asIs: TokenFinder;
  #normalized: TokenFinder;

  constructor(
    readonly vocabulary: Vocabulary,
    readonly normalizer: Normalizer | undefined,
  ) {
    this.#asIs = this.#finder();
    this.#normalized = this.#finder();
  }

  #finder(): TokenFinder {
    return new TokenFinder(this.vocabulary.section.limits.trieNodes);
  }

  /**
   * Adds tokens. One that the vocabulary has keeps its id, others get the next free one, whatever their file says.
   */
  add(tokens: readonly AddedToken[]): void {
    let changed = false;
    for (const token of tokens) {
      const id = this.idOf(token.content) ?? this.#nextId();
      const known = this.#tokens.get(id);
      if (token.content === '' || (known && sameToken(known, token))) continue;
      this.#ids.set(token.content, id);
      this.#tokens.set(id, token);
      this.#highest = Math.max(this.#highest, id);
      if (token.special) this.#special.add(token.content);
      changed = true;
    }
    if (changed) this.#refresh();
  }

  #nextId(): number {
    const highest = this.#highest;
    const { size } = this.vocabulary;
    return highest >= size || (size === 0 && highest >= 0) ? highest + 1 : size;
  }

  #refresh(): void {
    this.#asIs = this.#finder();
    this.#normalized = this.#finder();
    for (const [id, { content, normalized }] of this.#tokens) {
      const text = normalized ? (this.normalizer?.normalize(content) ?? content) : content;
      this.#texts.set(id, text);
      (normalized ? this.#normalized : this.#asIs).add(text, id);
    }
  }

  idOf(content: string): number | undefined {
    return this.#ids.get(content) ?? this.vocabulary.idOf(content);
  }

  textOf(id: number): string | undefined {
    return this.#texts.get(id) ?? this.vocabulary.textOf(id);
  }

  isSpecial(content: string): boolean {
    return this.#special.has(content);
  }

  /** By id. */
  get tokens(): ReadonlyMap<number, AddedToken> {
    return this.#tokens;
  }

  /** How many tokens there are with those of the vocabulary. */
  get size(): number {
    let more = 0;
    for (const content of this.#ids.keys()) if (this.vocabulary.idOf(content) === undefined) more++;
    return this.vocabulary.size + more;
  }

  /**
   * The text in parts, those for the model normalized.
   * @param special special tokens too; else their texts are text like any other
   */
  split(text: string, special = true): TextPart[] {
    const parts: TextPart[] = [];
    for (const part of this.#splitBy(this.#asIs, text, special)) {
      if (part.id !== undefined) parts.push(part);
      else {
        const normalized = this.normalizer?.normalize(part.text) ?? part.text;
        const fromOrigin = part.start === 0 ? this.#unitsOfFirst(part.text, normalized) : 0;
        for (const inner of this.#splitBy(this.#normalized, normalized, special))
          parts.push({ ...inner, fromOrigin: Math.max(0, fromOrigin - inner.start) });
      }
    }
    return parts;
  }

  /** How many units of a normalized text stem from the first character of the text: none when that was dropped. */
  #unitsOfFirst(text: string, normalized: string): number {
    const first = String.fromCodePoint(text.codePointAt(0)!);
    const own = this.normalizer?.normalize(first) ?? first;
    if (own === '') return this.normalizer?.keepsOrigin ? 1 : 0;
    let common = 0;
    while (common < own.length && own[common] === normalized[common]) common++;
    return Math.max(1, common);
  }

  #splitBy(finder: TokenFinder, text: string, special: boolean): TextPart[] {
    const found = finder.find(text);
    if (found.length === 0) return text === '' ? [] : [{ text, start: 0, fromOrigin: 0 }];
    const parts: TextPart[] = [];
    let last = 0;
    for (let i = 0; i < found.length; i += 3) {
      const id = found[i + 2];
      const token = this.#tokens.get(id)!;
      if (!special && this.#special.has(token.content)) continue;
      const bounds = boundsOf(token, text, found[i], found[i + 1], last);
      if (!bounds) continue;
      const [start, end] = bounds;
      if (last < start) parts.push({ text: text.slice(last, start), start: last, fromOrigin: 0 });
      parts.push({ text: text.slice(start, end), id, start, fromOrigin: 0 });
      last = end;
    }
    if (last < text.length) parts.push({ text: text.slice(last), start: last, fromOrigin: 0 });
    return parts;
  }
}

/** What a token takes of the text around it; undefined where it must stand alone and does not. */
function boundsOf(
  token: AddedToken,
  text: string,
  matchStart: number,
  matchEnd: number,
  last: number,
): [start: number, end: number] | undefined {
  let [start, end] = [matchStart, matchEnd];
  if (token.singleWord) {
    const before = text.slice(Math.max(0, start - 2), start);
    const behind = text.slice(end, end + 2);
    if (wordAtEnd.test(before) || wordAtStart.test(behind)) return undefined;
  }
  if (token.lstrip) while (start > last && isSpace.test(text[start - 1])) start--;
  if (token.rstrip) while (end < text.length && isSpace.test(text[end])) end++;
  return [start, end];
}

/** @throws CheckpointError for more tokens than a vocabulary may have. */
export function addedTokensOf(root: Section): AddedToken[] {
  const sections = root.sections('added_tokens', []);
  const { tokens, tokenId } = root.limits;
  if (sections.length > tokens) root.fail('added_tokens', `are more than ${tokens}`);
  return sections.map((section) => {
    const id = section.integer('id');
    if (id > tokenId) section.fail('id', `is ${id}, above ${tokenId}`);
    return addedTokenOf(section);
  });
}
