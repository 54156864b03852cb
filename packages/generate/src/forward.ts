import { assertInteger, ConfigError, DisposedError, ShapeError } from '@q/config';
import { blocksFor, isEncoderDecoder, type Model } from '@q/models';
import { fill, scatterRows, type Backend, type FloatDType, type Tensor } from '@q/tensor';
import { BlockPool, KvCache } from './cache.js';
import { passInto, passThrough, type CachedSlice, type SourceBlocks } from './pass.js';

/**
 * Keys and values of a batch between calls of {@link PastState.forward}, and those of what its encoder read; dispose it
 * when done.
 */
export class PastState implements Disposable {
  readonly #cache: KvCache;
  readonly #blocks: readonly (readonly number[])[];
  readonly #lengths: number[];
  #cross: BlockPool | undefined;
  #sources: readonly SourceBlocks[] | undefined;
  #disposed = false;

  /**
   * @param options.sequences how many sequences
   * @param options.maxLength most tokens of each
   * @throws ConfigError unless both are positive integers and maxLength is within the context; OutOfMemoryError
   */
  constructor(
    private readonly model: Model,
    private readonly backend: Backend,
    private readonly options: { sequences: number; maxLength: number; dtype: FloatDType; kvDtype?: FloatDType },
  ) {
    const { sequences, maxLength, dtype, kvDtype = dtype } = options;
    assertInteger('createPast', 'sequences', sequences);
    assertInteger('createPast', 'maxLength', maxLength, { max: model.maxContext });
    this.#cache = new KvCache(model, backend, { blocks: sequences * blocksFor(maxLength), dtype: kvDtype });
    this.#blocks = Array.from({ length: sequences }, () => this.#cache.take(maxLength));
    this.#lengths = Array.from({ length: sequences }, () => 0);
  }

  /** Tokens of each sequence so far; a copy, since kernels believe these numbers. */
  get lengths(): readonly number[] {
    return [...this.#lengths];
  }

  /** Whether it was made for this model. */
  isOf(model: Model): boolean {
    return this.model === model;
  }

  /** Whether the encoder has read the text of each sequence, which decoders with one need. */
  get isEncoded(): boolean {
    return this.#sources !== undefined;
  }

  /**
   * Runs the encoder over the text of each sequence, once, for all decoder tokens to come.
   * @param ids of each sequence, at least one
   * @returns its output for all tokens, packed: [T, hidden]
   * @throws ConfigError for a model without encoder and when it was done, ShapeError, OutOfMemoryError, DisposedError
   */
  encode(ids: readonly (readonly number[])[], { hiddenStates }: { hiddenStates?: Tensor[] } = {}): Tensor {
    const { backend, model } = this;
    const { dtype, kvDtype = dtype } = this.options;
    this.#assertRuns(ids);
    if (!isEncoderDecoder(model)) throw new ConfigError('forward', `${model.className} has no encoder`);
    if (this.#sources)
      throw new ConfigError('forward', 'the encoder has read the texts of this past already', {
        fix: 'give decoderInputIds without inputIds, or another past',
      });
    const blocks = ids.reduce((sum, { length }) => sum + blocksFor(length), 0);
    this.#cross?.dispose(); // of a call that failed
    const cross = (this.#cross = new BlockPool(model, 'cross', backend, { blocks, dtype: kvDtype }));
    const slices = ids.map((list) => ({ ids: list, start: 0, blocks: cross.take(list.length) }));
    const cache = { layers: this.#cache.layers, cross };
    const hidden = backend.scope(() =>
      passInto({ backend, dtype, cache }, slices, (pass) => model.encode(pass), hiddenStates),
    );
    this.#sources = slices.map(({ ids: { length }, blocks: own }) => ({ length, blocks: own }));
    return hidden;
  }

  /**
   * Runs the next tokens of each sequence (lists may differ in length, empty ones sit out).
   * @param more positions of the ids where they are not those that follow; takes the hidden states of the layers
   * @returns hidden states of all tokens, packed: [T, hidden]
   * @throws ShapeError when a sequence outgrows maxLength, DisposedError
   */
  forward(
    ids: readonly (readonly number[])[],
    more: { positions?: readonly (readonly number[])[]; hiddenStates?: Tensor[] } = {},
  ): Tensor {
    this.#assertRuns(ids);
    if (isEncoderDecoder(this.model) && !this.#sources)
      throw new ConfigError('forward', 'the encoder has read nothing yet', { fix: 'give inputIds in the first call' });
    const slices: CachedSlice[] = [];
    ids.forEach((list, i) => {
      const start = this.#lengths[i];
      if (start + list.length > this.options.maxLength)
        throw new ShapeError('forward', 'a sequence outgrows the cache', {
          sequence: i,
          length: start + list.length,
          maxLength: this.options.maxLength,
        });
      if (list.length > 0)
        slices.push({
          ids: list,
          start,
          positions: more.positions?.[i],
          blocks: this.#blocks[i],
          source: this.#sources?.[i],
        });
    });
    const { backend, model } = this;
    const { dtype, maxLength } = this.options;
    const hidden = backend.scope(() =>
      passThrough(
        { backend, dtype, cache: { layers: this.#cache.layers, cross: this.#cross ?? this.#cache.cross } },
        slices,
        blocksFor(maxLength),
        (pass) => model.forward(pass),
        more.hiddenStates,
      ),
    );
    ids.forEach((list, i) => (this.#lengths[i] += list.length));
    return hidden;
  }

  dispose(): void {
    this.#disposed = true;
    this.#cache.dispose();
    this.#cross?.dispose();
  }

  /** @throws DisposedError, ShapeError */
  #assertRuns(ids: readonly unknown[]): void {
    if (this.#disposed) throw new DisposedError('forward', 'this past was disposed');
    if (ids.length === this.options.sequences) return;
    throw new ShapeError('forward', 'wrong number of sequences', {
      got: ids.length,
      expected: this.options.sequences,
    });
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Row-major [batch, length] places of the packed rows; positions that stay empty are zero in the result of {@link
 * unpack}.
 */
export function unpack(
  backend: Backend,
  packed: Tensor,
  places: readonly number[],
  batch: number,
  length: number,
): Tensor {
  return backend.scope(() => {
    const width = packed.dim(1);
    const out = backend.empty([batch * length, width], packed.dtype);
    fill(out, 0);
    scatterRows(packed, backend.tensor(places, [places.length], 'i32'), out);
    return out.reshape([batch, length, width]);
  });
}
