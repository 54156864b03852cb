import { OutOfMemoryError, UnsupportedError } from '@q/config';
import { blocksFor, kvBlockSize, type LayerKeys, type Model, type State } from '@q/models';
import type { Backend, FloatDType, KvLayer, PagedRows } from '@q/tensor';

/**
 * The paged key/value cache (Kwon et al. 2023): fixed blocks of {@link kvBlockSize} tokens, shared out to sequences and
 * counted by reference, so that sequences can share a prefix.
 */
export class KvCache {
  readonly layers: readonly KvLayer[];
  readonly #free: number[];
  readonly #references: Int32Array;

  constructor(
    { state }: Pick<Model, 'state'>,
    backend: Backend,
    readonly options: { blocks: number; dtype: FloatDType },
  ) {
    const { blocks, dtype } = options;
    // The scope gives back what was made before a refusal.
    this.layers = backend.scope(() =>
      state.flatMap((spec) => {
        if (spec.kind !== 'kv') return [];
        const shape = [blocks, spec.numKvHeads, kvBlockSize, spec.headDim];
        return [{ keys: backend.allocate(shape, dtype), values: backend.allocate(shape, dtype) }];
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

/** The state of a pass whose rows have blocks of a cache. */
export class PagedState implements State {
  readonly #layers: readonly LayerKeys[];

  constructor({ layers }: KvCache, rows: PagedRows) {
    this.#layers = layers.map((layer) => ({ layer, rows }));
  }

  kv(index: number): LayerKeys {
    return this.#layers[index];
  }

  cross(): LayerKeys {
    throw new UnsupportedError('kvCache', 'this cache keeps no keys of an encoder');
  }
}
