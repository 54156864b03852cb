import { CheckpointError } from '@q/config';
import type { Section } from '../section.js';
import type { Vocabulary } from './vocabulary.js';

/** Turns parts of a text into ids: BPE, Unigram, WordPiece or WordLevel. */
export interface Model {
  readonly vocabulary: Vocabulary;
  /** Appends the ids of one part. @throws CheckpointError when it has no way to write an unknown part. */
  encode(text: string, ids: number[]): void;
}

/** A model whose vocabulary comes in parts, so that a large one does not hold the event loop. */
export interface ModelBuilder {
  /** Tokens with their ids; with their scores for Unigram. */
  addTokens(tokens: readonly unknown[], values: readonly unknown[]): void;
  /** Merges in order of rank, as pairs or as texts with a space. After all tokens. */
  addMerges(merges: readonly unknown[]): void;
  finish(): Model;
}

/** The id of a single unknown part. */
export function unknownId(section: Section, vocabulary: Vocabulary, token: string | undefined): number {
  const id = token === undefined ? undefined : vocabulary.idOf(token);
  if (id !== undefined) return id;
  throw new CheckpointError(
    'tokenizer',
    token === undefined
      ? `${section.file}: the text has an unknown part, and ${section.path} names no unknown token`
      : `${section.file}: the text has an unknown part, and ${section.path}.vocab lacks the unknown token "${token}"`,
    {},
  );
}
