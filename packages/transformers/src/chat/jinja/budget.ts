import { MAX_TEMPLATE_DEPTH } from '../../limits.js';
import { LimitError, type TemplateLimits } from './errors.js';

// Characters that cost one step. Reading (searching, comparing) is several times cheaper than writing, which also takes
// memory.
const READ_PER_STEP = 16;
const WRITE_PER_STEP = 8;

/** Steps of work with the largest integers, which takes up to 16 microseconds. */
const BIG_STEPS = { arithmetic: 10, power: 40, text: 160 } as const;

/**
 * What one rendering has left. Whatever costs time or memory asks here first: a template's work is bounded by its
 * steps, however it is written, on every machine alike.
 */
export class Budget {
  #steps = 0;
  #depth = 0;

  constructor(readonly limits: TemplateLimits) {}

  step(count = 1): void {
    this.#steps += count;
    if (this.#steps > this.limits.steps)
      throw new LimitError(`the chat template takes more than ${this.limits.steps} steps`, 'steps');
  }

  /** Before looking through text. */
  read(characters: number): void {
    this.step(characters / READ_PER_STEP);
  }

  /** Before looking a key up: the engine makes one piece of a text that was put together, and goes through it. */
  key(key: unknown): void {
    if (typeof key === 'string') this.read(key.length);
  }

  /** Before making a text, or growing one. */
  fits(characters: number): void {
    if (characters > this.limits.length)
      throw new LimitError(`the chat template makes a text of more than ${this.limits.length} characters`, 'length');
  }

  /** Before making a text character by character. */
  write(characters: number): void {
    this.fits(characters);
    this.step(characters / WRITE_PER_STEP);
  }

  /** Before computing with, reading or writing an integer beyond 2^53. */
  bigInteger(work: keyof typeof BIG_STEPS): void {
    this.step(BIG_STEPS[work]);
  }

  range(count: number): void {
    if (count > this.limits.range)
      throw new LimitError(`a range() of the chat template has more than ${this.limits.range} numbers`, 'range');
  }

  /** Around an evaluation inside another; pair with {@link leave}. */
  enter(): void {
    this.step();
    if (++this.#depth > MAX_TEMPLATE_DEPTH)
      throw new LimitError(`the chat template nests evaluations more than ${MAX_TEMPLATE_DEPTH} deep`);
  }

  leave(): void {
    this.#depth--;
  }
}
