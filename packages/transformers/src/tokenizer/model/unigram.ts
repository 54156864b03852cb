// Unigram language model (Kudo 2018): the pieces of highest total score, as the tokenizers library finds them.
import { shown, type Section } from '../section.js';
import { unknownId, type Model, type ModelBuilder } from './model.js';
import { Trie } from './trie.js';
import { Vocabulary } from './vocabulary.js';

/** An unknown character scores this much less than the least piece. */
const unknownPenalty = 10;

class Unigram implements Model {
  constructor(
    readonly vocabulary: Vocabulary,
    readonly scores: readonly number[],
    readonly trie: Trie,
    readonly unkId: number | undefined,
    readonly usesBytes: boolean,
    readonly unknownScore: number,
  ) {}

  encode(text: string, ids: number[]): void {
    const { starts, best } = this.#paths(text);
    const pieces: [start: number, end: number][] = []; // from the last to the first
    let wasUnknown = false;
    for (let end = text.length; end > 0; end = starts[end]) {
      const isUnknown = best[end] === this.unkId;
      if (isUnknown && wasUnknown) pieces.at(-1)![0] = starts[end];
      else pieces.push([starts[end], end]);
      wasUnknown = isUnknown;
    }
    for (const [start, end] of pieces.reverse()) this.#push(text.slice(start, end), ids);
  }

  /** For each place: where the last piece of the best way to it starts (-1: no way), and its id. */
  #paths(text: string): { starts: Int32Array; best: Int32Array } {
    const starts = new Int32Array(text.length + 1).fill(-1);
    const best = new Int32Array(text.length + 1);
    const totals = new Float64Array(text.length + 1);
    const offer = (start: number, end: number, id: number, score: number) => {
      const total = totals[start] + score;
      if (starts[end] >= 0 && total <= totals[end]) return;
      [starts[end], best[end], totals[end]] = [start, id, total];
    };
    for (let start = 0; start < text.length;) {
      const width = text.codePointAt(start)! > 0xffff ? 2 : 1;
      let single = false;
      for (let end = start, node = 0; end < text.length;) {
        node = this.trie.child(node, text.charCodeAt(end++));
        if (node < 0) break;
        const id = this.trie.value(node);
        if (id < 0) continue;
        offer(start, end, id, this.scores[id]);
        single ||= end - start === width;
      }
      if (!single) offer(start, start + width, this.#unknown(), this.unknownScore);
      start += width;
    }
    return { starts, best };
  }

  #unknown(): number {
    return this.unkId ?? unknownId(this.vocabulary.section, this.vocabulary, undefined);
  }

  #push(piece: string, ids: number[]): void {
    const id = this.vocabulary.idOf(piece);
    if (id !== undefined) ids.push(id);
    else if (!this.usesBytes || !this.#pushBytes(piece, ids)) ids.push(this.#unknown());
  }

  #pushBytes(piece: string, ids: number[]): boolean {
    const own: number[] = [];
    for (const byte of Buffer.from(piece, 'utf8')) {
      const id = this.vocabulary.idOf(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
      if (id === undefined) return false;
      own.push(id);
    }
    for (const id of own) ids.push(id);
    return true;
  }
}

export class UnigramBuilder implements ModelBuilder {
  readonly #vocabulary: Vocabulary;
  readonly #scores: number[] = [];
  readonly #trie: Trie;
  #least = Infinity;

  constructor(readonly section: Section) {
    this.#vocabulary = new Vocabulary(section);
    this.#trie = new Trie(section.limits.trieNodes);
  }

  /** @param scores natural logarithms of the pieces' probabilities */
  addTokens(tokens: readonly unknown[], scores: readonly unknown[]): void {
    tokens.forEach((token, i) => {
      const id = this.#scores.length;
      const score = scores[i];
      if (typeof token !== 'string' || typeof score !== 'number' || !Number.isFinite(score))
        return this.section.fail(`vocab[${id}]`, `is ${shown(token)} with ${shown(score)}, not a piece and its score`);
      this.#scores.push(score);
      this.#vocabulary.addPiece(token, id);
      this.#trie.set(token, id);
      this.#least = Math.min(this.#least, score);
    });
  }

  addMerges(): void {
    this.section.fail('merges', 'does not belong to a Unigram model');
  }

  finish(): Model {
    const { section } = this;
    const hasUnknown = section.value.unk_id !== undefined && section.value.unk_id !== null;
    const unkId = hasUnknown ? section.integer('unk_id') : undefined;
    if (unkId !== undefined && unkId >= this.#scores.length)
      section.fail('unk_id', `is ${unkId}, in a vocabulary of ${this.#scores.length}`);
    return new Unigram(
      this.#vocabulary,
      this.#scores,
      this.#trie,
      unkId,
      section.boolean('byte_fallback', false),
      this.#least - unknownPenalty,
    );
  }
}
