import { ShapeError } from '@q/config';
import type { CausalLM } from '@q/models';
import { crossEntropy, fill, scatterRows, type Backend, type FloatDType, type Tensor } from '@q/tensor';
import { packBatch, type Slice } from './batch.js';
import { blocksFor, KvCache } from './cache.js';

/** Keys and values of a batch between calls of {@link PastState.forward}; dispose it when done. */
export class PastState implements Disposable {
  readonly #cache: KvCache;
  readonly #blocks: readonly (readonly number[])[];
  readonly #lengths: number[];

  /**
   * @param options.sequences how many sequences
   * @param options.maxLength most tokens of each
   */
  constructor(
    private readonly model: CausalLM,
    private readonly backend: Backend,
    private readonly options: { sequences: number; maxLength: number; dtype: FloatDType; kvDtype?: FloatDType },
  ) {
    const { sequences, maxLength, dtype, kvDtype = dtype } = options;
    this.#cache = new KvCache(model, backend, { blocks: sequences * blocksFor(maxLength), dtype: kvDtype });
    this.#blocks = Array.from({ length: sequences }, () => this.#cache.take(maxLength));
    this.#lengths = Array.from({ length: sequences }, () => 0);
  }

  /** Tokens of each sequence so far. */
  get lengths(): readonly number[] {
    return this.#lengths;
  }

  /**
   * Runs the next tokens of each sequence (lists may differ in length, empty ones sit out).
   * @returns hidden states of all tokens, packed: [T, hidden]
   * @throws ShapeError when a sequence outgrows maxLength.
   */
  forward(ids: readonly (readonly number[])[]): Tensor {
    if (ids.length !== this.options.sequences)
      throw new ShapeError('forward', 'wrong number of sequences', {
        got: ids.length,
        expected: this.options.sequences,
      });
    const slices: Slice[] = [];
    ids.forEach((list, i) => {
      const start = this.#lengths[i];
      if (start + list.length > this.options.maxLength)
        throw new ShapeError('forward', 'a sequence outgrows the cache', {
          sequence: i,
          length: start + list.length,
          maxLength: this.options.maxLength,
        });
      if (list.length > 0) slices.push({ ids: list, start, blocks: this.#blocks[i] });
    });
    this.model.prepare(
      this.backend,
      slices.map((slice) => slice.start + slice.ids.length),
    );
    const hidden = this.backend.scope(() =>
      this.model.forward({
        batch: packBatch(this.backend, slices, blocksFor(this.options.maxLength)),
        kv: this.#cache.layers,
        dtype: this.options.dtype,
      }),
    );
    ids.forEach((list, i) => (this.#lengths[i] += list.length));
    return hidden;
  }

  dispose(): void {
    this.#cache.dispose();
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

/**
 * Negative log likelihoods of tokens 1.. of each window given those before it.
 * @param windows lists of at least 2 ids
 * @param onWindow called after each window with its mean
 * @returns mean negative log likelihood per window
 */
export async function scoreWindows(
  model: CausalLM,
  backend: Backend,
  windows: readonly (readonly number[])[],
  {
    dtype,
    signal,
    onWindow,
  }: { dtype: FloatDType; signal?: AbortSignal; onWindow?: (index: number, mean: number) => void },
): Promise<number[]> {
  const means: number[] = [];
  for (const [index, window] of windows.entries()) {
    signal?.throwIfAborted();
    using past = new PastState(model, backend, { sequences: 1, maxLength: window.length, dtype });
    const hidden = past.forward([window]);
    let sum = 0;
    try {
      for (let start = 0; start < window.length - 1; start += scoringRows) {
        const end = Math.min(start + scoringRows, window.length - 1);
        const losses = backend.scope(() =>
          crossEntropy(
            model.logits(hidden.slice(start, end)),
            backend.tensor(window.slice(start + 1, end + 1), [end - start], 'i32'),
          ),
        );
        for (const loss of await losses.data()) sum += loss;
        losses.dispose();
      }
    } finally {
      hidden.dispose();
    }
    means.push(sum / (window.length - 1));
    onWindow?.(index, means[index]);
  }
  return means;
}

/** exp of the mean of the windows' means. */
export const perplexityOf = (means: readonly number[]): number =>
  Math.exp(means.reduce((a, b) => a + b, 0) / means.length);
