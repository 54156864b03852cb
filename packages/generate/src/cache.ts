import { OutOfMemoryError } from '@q/config';
import type { CausalLM } from '@q/models';
import { dtypeBytes, type Backend, type FloatDType, type KvLayer } from '@q/tensor';

/** Tokens per cache block. */
export const kvBlockSize = 32;

export const blocksFor = (tokens: number): number => Math.ceil(tokens / kvBlockSize);

/** Bytes that the cache of a model needs for each token of context. */
export const kvBytesPerToken = (model: Pick<CausalLM, 'kvShapes'>, dtype: FloatDType): number =>
  model.kvShapes.reduce((sum, { numKvHeads, headDim }) => sum + 2 * numKvHeads * headDim * dtypeBytes(dtype), 0);

/**
 * The paged key/value cache (Kwon et al. 2023): fixed blocks of {@link kvBlockSize} tokens, shared out to sequences and
 * counted by reference, so that sequences can share a prefix.
 */
export class KvCache {
  readonly layers: readonly KvLayer[];
  readonly #free: number[];
  readonly #references: Int32Array;

  constructor(
    model: Pick<CausalLM, 'kvShapes'>,
    backend: Backend,
    readonly options: { blocks: number; dtype: FloatDType },
  ) {
    const { blocks, dtype } = options;
    // The scope gives back what was made before a refusal.
    this.layers = backend.scope(() =>
      model.kvShapes.map(({ numKvHeads, headDim }) => {
        const shape = [blocks, numKvHeads, kvBlockSize, headDim];
        return { keys: backend.allocate(shape, dtype), values: backend.allocate(shape, dtype) };
      }),
    );
    for (const { keys, values } of this.layers) {
      keys.keep();
      values.keep();
    }
    this.#free = Array.from({ length: blocks }, (_, i) => blocks - 1 - i);
    this.#references = new Int32Array(blocks);
  }

  get freeBlocks(): number {
    return this.#free.length;
  }

  /** Takes blocks for `tokens` tokens. @throws OutOfMemoryError when too few are free. */
  take(tokens: number): number[] {
    const count = blocksFor(tokens);
    if (count > this.#free.length) {
      throw new OutOfMemoryError('kvCache', `${tokens} tokens need ${count} blocks`, {
        free: this.#free.length,
        blocks: this.options.blocks,
        fix: 'shorten the context or the batch',
      });
    }
    const blocks = this.#free.splice(this.#free.length - count, count);
    this.share(blocks);
    return blocks;
  }

  /** Counts one more owner. */
  share(blocks: readonly number[]): void {
    for (const block of blocks) this.#references[block] += 1;
  }

  /** Counts one owner less; blocks without owners become free. */
  give(blocks: readonly number[]): void {
    for (const block of blocks) {
      this.#references[block] -= 1;
      if (this.#references[block] === 0) this.#free.push(block);
    }
  }

  dispose(): void {
    for (const { keys, values } of this.layers) {
      keys.dispose();
      values.dispose();
    }
  }
}
