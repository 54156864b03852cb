// Models that look words up: WordPiece (the longest known beginning, again and again) and WordLevel (whole words).
import type { Section } from '../section.js';
import { unknownId, type Model, type ModelBuilder } from './model.js';
import { Vocabulary } from './vocabulary.js';

class WordPiece implements Model {
  constructor(
    readonly vocabulary: Vocabulary,
    readonly unkToken: string,
    readonly prefix: string,
    readonly longest: number,
  ) {}

  encode(text: string, ids: number[]): void {
    const ends: number[] = [0]; // of the characters
    for (const char of text) ends.push(ends.at(-1)! + char.length);
    const pieces = ends.length - 1 > this.longest ? undefined : this.#pieces(text, ends);
    if (pieces) for (const id of pieces) ids.push(id);
    else ids.push(unknownId(this.vocabulary.section, this.vocabulary, this.unkToken));
  }

  #pieces(text: string, ends: readonly number[]): number[] | undefined {
    const pieces: number[] = [];
    for (let start = 0; start < ends.length - 1;) {
      let end = ends.length - 1;
      let id: number | undefined;
      for (; end > start; end--) {
        const piece = text.slice(ends[start], ends[end]);
        id = this.vocabulary.idOf(start > 0 ? this.prefix + piece : piece);
        if (id !== undefined) break;
      }
      if (id === undefined) return undefined;
      pieces.push(id);
      start = end;
    }
    return pieces;
  }
}

class WordLevel implements Model {
  constructor(
    readonly vocabulary: Vocabulary,
    readonly unkToken: string,
  ) {}

  encode(text: string, ids: number[]): void {
    ids.push(this.vocabulary.idOf(text) ?? unknownId(this.vocabulary.section, this.vocabulary, this.unkToken));
  }
}

abstract class WordsBuilder implements ModelBuilder {
  protected readonly vocabulary: Vocabulary;

  constructor(readonly section: Section) {
    this.vocabulary = new Vocabulary(section);
  }

  addTokens(tokens: readonly unknown[], ids: readonly unknown[]): void {
    tokens.forEach((token, i) => this.vocabulary.add(token, ids[i]));
  }

  addMerges(): void {
    this.section.fail('merges', 'does not belong to this kind of model');
  }

  abstract finish(): Model;
}

export class WordPieceBuilder extends WordsBuilder {
  finish(): Model {
    const { section } = this;
    return new WordPiece(
      this.vocabulary,
      section.string('unk_token', '[UNK]'),
      section.string('continuing_subword_prefix', '##'),
      section.integer('max_input_chars_per_word', 100),
    );
  }
}

export class WordLevelBuilder extends WordsBuilder {
  finish(): Model {
    return new WordLevel(this.vocabulary, this.section.string('unk_token', '<unk>'));
  }
}
