// Reads SentencePiece's model files: protobuf (sentencepiece_model.proto), of which only what a tokenizer needs. Every
// length is checked against what is left; fields that are not known are passed over.
import { CheckpointError } from '@q/config';

export interface SentencePiece {
  readonly text: string;
  /** Natural logarithm of its probability; for BPE minus its rank. */
  readonly score: number;
  readonly type: number;
}

/** Types of pieces. */
export const pieceType = { control: 3, userDefined: 4 } as const;

export interface SentencePieceModel {
  readonly pieces: readonly SentencePiece[];
  readonly kind: 'unigram' | 'bpe';
  readonly byteFallback: boolean;
  readonly unkId: number;
  readonly unkPiece: string;
  /** Texts of the tokens that begin and end a text, where the model has them. */
  readonly bosPiece: string | undefined;
  readonly eosPiece: string | undefined;
  readonly characterMap: Buffer | undefined;
}

interface Field {
  readonly number: number;
  /** A number for varints and fixed widths, bytes for the rest. */
  readonly value: number | Buffer;
}

class Reader {
  #at = 0;

  constructor(
    readonly bytes: Buffer,
    readonly file: string,
  ) {}

  fail(what: string): never {
    throw new CheckpointError('tokenizer', `${this.file} is not a SentencePiece model: ${what}`, {
      fix: 'check that the file is complete',
    });
  }

  /** An unsigned number of up to 64 bits; those above 53 are not exact, and none that is read is so large. */
  #varint(): number {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.bytes[this.#at++];
      if (byte === undefined) this.fail(`it ends inside a number, at byte ${this.#at - 1}`);
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    return this.fail(`a number at byte ${this.#at} is too long`);
  }

  #take(length: number): Buffer {
    if (length > this.bytes.length - this.#at)
      this.fail(`a field at byte ${this.#at} has ${length} bytes, ${this.bytes.length - this.#at} are left`);
    return this.bytes.subarray(this.#at, (this.#at += length));
  }

  *fields(): Generator<Field> {
    while (this.#at < this.bytes.length) {
      const tag = this.#varint();
      const number = Math.floor(tag / 8);
      const wire = tag % 8;
      if (number === 0) this.fail(`byte ${this.#at - 1} has field 0`);
      if (wire === 0) yield { number, value: this.#varint() };
      else if (wire === 1) yield { number, value: this.#take(8) };
      else if (wire === 2) yield { number, value: this.#take(this.#varint()) };
      else if (wire === 5) yield { number, value: this.#take(4) };
      else this.fail(`byte ${this.#at - 1} has the wire type ${wire}`);
    }
  }

  /** Fields by number; the last of equals counts. */
  message(bytes: Buffer): Map<number, number | Buffer> {
    return new Map([...new Reader(bytes, this.file).fields()].map(({ number, value }) => [number, value]));
  }
}

/** @throws CheckpointError for bytes that are no such model. */
export function readSentencePiece(bytes: Buffer, file: string, most: number): SentencePieceModel {
  const reader = new Reader(bytes, file);
  const pieces: SentencePiece[] = [];
  let trainer = new Map<number, number | Buffer>();
  let normalizer = new Map<number, number | Buffer>();
  for (const { number, value } of reader.fields()) {
    if (number > 3) continue;
    if (typeof value === 'number') return reader.fail(`field ${number} is a number`);
    if (number === 1) pieces.push(pieceOf(reader.message(value), reader));
    else if (number === 2) trainer = reader.message(value);
    else if (number === 3) normalizer = reader.message(value);
    if (pieces.length > most) reader.fail(`it has more than ${most} pieces`);
  }
  if (pieces.length === 0) reader.fail('it has no pieces');
  return modelOf(reader, pieces, trainer, normalizer);
}

function pieceOf(fields: ReadonlyMap<number, number | Buffer>, reader: Reader): SentencePiece {
  const [text, score, type] = [fields.get(1), fields.get(2), fields.get(3)];
  if (!Buffer.isBuffer(text)) return reader.fail('a piece has no text');
  if (score !== undefined && (!Buffer.isBuffer(score) || score.length !== 4)) return reader.fail('a score is no float');
  const value = score === undefined ? 0 : score.readFloatLE(0);
  if (!Number.isFinite(value)) return reader.fail(`the score of ${JSON.stringify(text.toString('utf8'))} is ${value}`);
  return { text: text.toString('utf8'), score: value, type: typeof type === 'number' ? type : 1 };
}

function modelOf(
  reader: Reader,
  pieces: readonly SentencePiece[],
  trainer: ReadonlyMap<number, number | Buffer>,
  normalizer: ReadonlyMap<number, number | Buffer>,
): SentencePieceModel {
  const text = (number: number, fallback: string): string => {
    const value = trainer.get(number);
    return Buffer.isBuffer(value) ? value.toString('utf8') : fallback;
  };
  const id = (number: number, fallback: number): number => {
    const value = trainer.get(number);
    // Negative ids (none) are 64-bit complements.
    return typeof value === 'number' ? (value >= 2 ** 31 ? -1 : value) : fallback;
  };
  const kind = trainer.get(3) ?? 1;
  if (kind !== 1 && kind !== 2)
    return reader.fail(`it is of kind ${String(kind)}; unigram (1) and BPE (2) can be read`);
  const unkId = id(40, 0);
  if (unkId >= pieces.length) reader.fail(`unk_id is ${unkId}, of ${pieces.length} pieces`);
  const characterMap = normalizer.get(2);
  return {
    pieces,
    kind: kind === 1 ? 'unigram' : 'bpe',
    byteFallback: trainer.get(35) === 1,
    unkId,
    unkPiece: text(45, '<unk>'),
    bosPiece: id(41, 1) >= 0 ? text(46, '<s>') : undefined,
    eosPiece: id(42, 2) >= 0 ? text(47, '</s>') : undefined,
    characterMap: Buffer.isBuffer(characterMap) && characterMap.length > 0 ? characterMap : undefined,
  };
}

/**
 * The merges of a BPE vocabulary that does not say them: each token of two others, in order of the tokens, then of the
 * lengths of the parts, as transformers 5 makes them.
 */
export function mergesOf(vocabulary: ReadonlyMap<string, number>): [string, string][] {
  const merges: { left: string; right: string; rank: number; sizes: [number, number] }[] = [];
  for (const [token, rank] of vocabulary) {
    const chars = [...token];
    const own: { left: string; right: string; ids: [number, number]; sizes: [number, number] }[] = [];
    for (let cut = 1, at = 0; cut < chars.length; cut++) {
      at += chars[cut - 1].length;
      const [left, right] = [token.slice(0, at), token.slice(at)];
      const ids = [vocabulary.get(left), vocabulary.get(right)];
      if (ids[0] === undefined || ids[1] === undefined) continue;
      own.push({ left, right, ids: [ids[0], ids[1]], sizes: [cut, chars.length - cut] });
    }
    own.sort((a, b) => a.ids[0] - b.ids[0] || a.ids[1] - b.ids[1]);
    for (const { left, right, sizes } of own) merges.push({ left, right, rank, sizes });
  }
  merges.sort((a, b) => a.rank - b.rank || a.sizes[0] - b.sizes[0] || a.sizes[1] - b.sizes[1]);
  return merges.map(({ left, right }) => [left, right]);
}
