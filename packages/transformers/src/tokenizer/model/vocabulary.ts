import { shown, type Section } from '../section.js';

/** Texts and ids of a model's tokens. */
export class Vocabulary {
  readonly #ids = new Map<string, number>();
  readonly #texts: string[] = [];
  #highest = -1;
  #pieces: number | undefined;

  /** @param section the model, for errors */
  readonly section: Section;

  constructor(section: Section) {
    this.section = section;
  }

  /** @throws CheckpointError for an id that is none, is too high, or is taken. */
  add(token: unknown, id: unknown): void {
    const section: Section = this.section;
    const { tokenId, tokens } = section.limits;
    if (typeof token !== 'string') section.fail('vocab', `has ${shown(token)} for a token`);
    if (!Number.isSafeInteger(id) || (id as number) < 0)
      section.fail('vocab', `gives ${shown(token)} the id ${shown(id)}, not a whole number from 0`);
    const index = id as number;
    if (index > tokenId) section.fail('vocab', `gives ${shown(token)} the id ${index}, above ${tokenId}`);
    const taken = this.#texts[index];
    if (taken !== undefined && taken !== token)
      section.fail('vocab', `gives ${shown(token)} and ${shown(taken)} the same id ${index}`);
    if (this.#ids.size >= tokens) section.fail('vocab', `has more than ${tokens} tokens`);
    this.#ids.set(token, index);
    this.#texts[index] = token;
    this.#highest = Math.max(this.#highest, index);
  }

  /** For a list of pieces, where a text that comes twice has its last id. */
  addPiece(token: string, id: number): void {
    this.#ids.set(token, id);
    this.#texts[id] = token;
    this.#highest = Math.max(this.#highest, id);
    this.#pieces = id + 1;
  }

  idOf(token: string): number | undefined {
    return this.#ids.get(token);
  }

  textOf(id: number): string | undefined {
    return this.#texts[id];
  }

  /** Tokens; for a list of pieces its length. */
  get size(): number {
    return this.#pieces ?? this.#ids.size;
  }

  /** Highest id, -1 without tokens. */
  get highest(): number {
    return this.#highest;
  }

  entries(): IterableIterator<[string, number]> {
    return this.#ids.entries();
  }
}
