import { assertInteger, ConfigError, describeValue, DisposedError, NumericsError, ShapeError } from '@q/config';
import { blocksFor, isEncoderDecoder, type CausalLM, type Model } from '@q/models';
import { crossEntropy, fill, scatterRows, type Backend, type FloatDType, type Tensor } from '@q/tensor';
import { BlockPool, KvCache } from './cache.js';
import { passInto, passOver, passThrough, type CachedSlice, type SourceBlocks } from './pass.js';
import { assertFits, assertTokenIds } from './requests.js';

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

/** Rows of logits made at a time when scoring, so that a large vocabulary needs little memory. */
const scoringRows = 256;

interface ScoringOptions {
  readonly dtype: FloatDType;
  readonly signal?: AbortSignal;
  /** Called after each window with its mean. */
  readonly onWindow?: (index: number, mean: number) => void;
}

/**
 * Negative log likelihoods of tokens 1.. of each window given those before it.
 * @param windows lists of at least 2 ids that fit into the context
 * @returns mean negative log likelihood per window
 * @throws ConfigError for windows, NumericsError for a mean that is not finite; the signal's reason on abort
 */
export async function scoreWindows(
  model: CausalLM,
  backend: Backend,
  windows: readonly (readonly number[])[],
  { dtype, signal, onWindow }: ScoringOptions,
): Promise<number[]> {
  checkWindows(windows, model);
  const means: number[] = [];
  for (const [index, window] of windows.entries()) {
    signal?.throwIfAborted();
    const mean = await scoreWindow(model, backend, window, { dtype, signal });
    if (!Number.isFinite(mean))
      throw new NumericsError('score', `the mean of window ${index} is ${mean}`, {
        why: 'its logits are not finite: a weight is damaged, or a value outgrew its dtype',
        fix: 'load with checkFinite: true to find the first layer',
      });
    means.push(mean);
    onWindow?.(index, mean);
  }
  return means;
}

async function scoreWindow(
  model: CausalLM,
  backend: Backend,
  window: readonly number[],
  { dtype, signal }: ScoringOptions,
): Promise<number> {
  const pass = () => passOver({ backend, dtype }, [{ ids: window, start: 0 }], (given) => model.forward(given));
  using hidden = backend.cancellable(signal, () => backend.scope(pass));
  let sum = 0;
  for (let start = 0; start < window.length - 1; start += scoringRows) {
    const end = Math.min(start + scoringRows, window.length - 1);
    const lossesOf = () =>
      crossEntropy(
        model.logits(hidden.slice(start, end)),
        backend.tensor(window.slice(start + 1, end + 1), [end - start], 'i32'),
      );
    using losses = backend.cancellable(signal, () => backend.scope(lossesOf));
    const values = await losses.data();
    signal?.throwIfAborted();
    for (const loss of values) sum += loss;
  }
  return sum / (window.length - 1);
}

function checkWindows(windows: unknown, model: CausalLM): void {
  if (!Array.isArray(windows) || windows.length === 0)
    throw new ConfigError('score', `windows is ${describeValue(windows)}`, {
      why: 'it must be a list of lists of token ids',
    });
  for (let i = 0; i < windows.length; i++) {
    const window: unknown = windows[i];
    assertTokenIds('score', `windows[${i}]`, window, model.vocabSize);
    if (window.length < 2)
      throw new ConfigError('score', `windows[${i}] has ${window.length} tokens`, {
        why: 'the first token of a window is given, so it takes 2 to score one',
      });
    assertFits('score', `windows[${i}]`, window.length, model);
  }
}

/** exp of the mean of the windows' means. @throws ConfigError unless they are numbers, one at least */
export function perplexityOf(means: readonly number[]): number {
  if (!Array.isArray(means) || means.length === 0)
    throw new ConfigError('perplexityOf', `means is ${describeValue(means)}`, { fix: 'give what score() returns' });
  const odd = means.findIndex((mean) => typeof mean !== 'number');
  if (odd >= 0)
    throw new ConfigError('perplexityOf', `means[${odd}] is ${describeValue(means[odd])}, not a number`, {
      fix: 'give what score() returns, awaited',
    });
  return Math.exp(means.reduce((a, b) => a + b, 0) / means.length);
}
