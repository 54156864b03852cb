// Byte pair encoding (Sennrich et al. 2016), as the tokenizers library does it.
import { shown, type Section } from '../section.js';
import { mergeWord, MergeTable } from './merges.js';
import { unknownId, type Model, type ModelBuilder } from './model.js';
import { Vocabulary } from './vocabulary.js';

/** Parts whose ids are kept, and the longest of them in UTF-16 units. */
const cached = 20_000;
const longestCached = 64;

/** Tokens of the 256 bytes; undefined when one is missing. */
const byteIds = (vocabulary: Vocabulary): readonly (number | undefined)[] =>
  Array.from({ length: 256 }, (_, byte) => vocabulary.idOf(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`));

interface Settings {
  readonly unkToken: string | undefined;
  readonly prefix: string;
  readonly suffix: string;
  readonly fusesUnknown: boolean;
  readonly ignoresMerges: boolean;
}

class Bpe implements Model {
  readonly #cache = new Map<string, readonly number[]>();

  constructor(
    readonly vocabulary: Vocabulary,
    readonly merges: MergeTable,
    readonly settings: Settings,
    readonly bytes: readonly (number | undefined)[],
  ) {}

  encode(text: string, ids: number[]): void {
    const known = this.#cache.get(text);
    if (known) {
      for (const id of known) ids.push(id);
      return;
    }
    const own = this.#encode(text);
    if (text.length <= longestCached) {
      if (this.#cache.size >= cached) this.#cache.clear();
      this.#cache.set(text, own);
    }
    for (const id of own) ids.push(id);
  }

  #encode(text: string): readonly number[] {
    if (this.settings.ignoresMerges) {
      const whole = this.vocabulary.idOf(text);
      if (whole !== undefined) return [whole];
    }
    return mergeWord(this.#symbols(text), this.merges);
  }

  /** The ids of the characters: their own, those of their bytes, or the unknown one. */
  #symbols(text: string): number[] {
    const { prefix, suffix, fusesUnknown, unkToken } = this.settings;
    const symbols: number[] = [];
    let unknown: number | undefined;
    const flush = () => {
      if (unknown !== undefined) symbols.push(unknown);
      unknown = undefined;
    };
    for (let at = 0; at < text.length;) {
      const width = text.codePointAt(at)! > 0xffff ? 2 : 1;
      const char = text.slice(at, at + width);
      const written = (at === 0 ? '' : prefix) + char + (at + width === text.length ? suffix : '');
      at += width;
      const id = this.vocabulary.idOf(written);
      if (id !== undefined) {
        flush();
        symbols.push(id);
      } else if (!this.#pushBytes(written, symbols) && unkToken !== undefined) {
        if (!fusesUnknown) flush();
        unknown ??= unknownId(this.vocabulary.section, this.vocabulary, unkToken);
      }
    }
    flush();
    return symbols;
  }

  #pushBytes(text: string, symbols: number[]): boolean {
    if (this.bytes.length === 0) return false;
    const ids = Array.from(Buffer.from(text, 'utf8'), (byte) => this.bytes[byte]);
    if (ids.includes(undefined)) return false;
    for (const id of ids as number[]) symbols.push(id);
    return true;
  }
}

export class BpeBuilder implements ModelBuilder {
  readonly #vocabulary: Vocabulary;
  readonly #merges = new MergeTable();
  readonly #settings: Settings;
  readonly #usesBytes: boolean;
  #rank = 0;

  constructor(readonly section: Section) {
    this.#vocabulary = new Vocabulary(section);
    if (section.value.dropout) section.fail('dropout', 'is not 0: encoding would be random');
    this.#settings = {
      unkToken: section.optionalString('unk_token'),
      prefix: section.string('continuing_subword_prefix', ''),
      suffix: section.string('end_of_word_suffix', ''),
      fusesUnknown: section.boolean('fuse_unk', false),
      ignoresMerges: section.boolean('ignore_merges', false),
    };
    this.#usesBytes = section.boolean('byte_fallback', false);
  }

  addTokens(tokens: readonly unknown[], ids: readonly unknown[]): void {
    tokens.forEach((token, i) => this.#vocabulary.add(token, ids[i]));
  }

  addMerges(merges: readonly unknown[]): void {
    const { prefix } = this.#settings;
    for (const merge of merges) {
      if (typeof merge === 'string' && merge.startsWith('#version')) continue;
      const [left, right] = this.#pair(merge);
      this.#merges.set(
        this.#id(left, merge),
        this.#id(right, merge),
        this.#rank++,
        this.#id(left + right.slice(prefix.length), merge),
      );
    }
  }

  finish(): Model {
    return new Bpe(this.#vocabulary, this.#merges, this.#settings, this.#usesBytes ? byteIds(this.#vocabulary) : []);
  }

  #pair(merge: unknown): readonly [string, string] {
    const parts: unknown = typeof merge === 'string' ? merge.split(' ') : merge;
    const isPair = Array.isArray(parts) && parts.length === 2 && parts.every((part) => typeof part === 'string');
    if (!isPair) return this.section.fail(`merges[${this.#rank}]`, `is ${shown(merge)}, not two tokens`);
    return parts as unknown as readonly [string, string];
  }

  #id(token: string, merge: unknown): number {
    const id = this.#vocabulary.idOf(token);
    if (id !== undefined) return id;
    return this.section.fail(`merges[${this.#rank}]`, `is ${shown(merge)}, and the vocabulary lacks ${shown(token)}`);
  }
}
