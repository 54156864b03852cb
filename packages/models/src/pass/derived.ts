import type { Backend, Tensor } from '@q/tensor';

/** Numbers for each sequence, all of one count, one sequence behind the other. */
type Make = (lengths: readonly number[]) => Float32Array | Int32Array;

interface Entry {
  readonly tensor: Tensor;
  readonly make: Make;
}

/**
 * Tables on the device that follow from the lengths of a pass's sequences, such as rotary frequencies. Whoever needs
 * one asks for it in the pass; it is made once, and made anew by {@link refresh} before a recorded pass runs again.
 */
export class Derived implements Disposable {
  readonly #entries = new Map<object, Entry>();

  /**
   * @param lengths for each sequence the context length that decides, which is the one after the pass; for a part of a
   *   prompt that of the whole prompt
   */
  constructor(
    private readonly backend: Backend,
    private lengths: readonly number[],
  ) {}

  /** Whether nobody has asked for a table: nothing follows from the lengths. */
  get isEmpty(): boolean {
    return this.#entries.size === 0;
  }

  /** The lengths that decide. */
  get current(): readonly number[] {
    return this.lengths;
  }

  /**
   * The table of a key: f32 or i32 [sequences, count / sequences].
   * @param key who asks: the same table for the same key
   * @param make its numbers; pure
   */
  get(key: object, make: Make): Tensor {
    const known = this.#entries.get(key);
    if (known) return known.tensor;
    const values = make(this.lengths);
    const shape = [this.lengths.length, values.length / this.lengths.length];
    const tensor = this.backend.tensor(values, shape, values instanceof Int32Array ? 'i32' : 'f32').keep();
    this.#entries.set(key, { tensor, make });
    return tensor;
  }

  /** Makes all tables anew, for other lengths of as many sequences. */
  refresh(lengths: readonly number[]): void {
    this.lengths = lengths;
    for (const { tensor, make } of this.#entries.values()) this.backend.assign(tensor, make(lengths));
  }

  dispose(): void {
    for (const { tensor } of this.#entries.values()) tensor.dispose();
    this.#entries.clear();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
