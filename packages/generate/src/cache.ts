import { OutOfMemoryError, UnsupportedError } from '@q/config';
import { blocksFor, keyValueShapes, type LayerKeys, type Model, type State, type StateSpec } from '@q/models';
import type { Backend, FloatDType, KvLayer, PagedRows } from '@q/tensor';

/**
 * Fixed blocks of `kvBlockSize` tokens in every layer of one kind (Kwon et al. 2023), shared out to sequences and
 * counted by reference, so that sequences can share them.
 */
export class BlockPool {
  readonly layers: readonly KvLayer[];
  readonly #free: number[];
  readonly #references: Int32Array;

  constructor(
    { state }: Pick<Model, 'state'>,
    kind: Exclude<StateSpec['kind'], 'recurrent'>,
    backend: Backend,
    { blocks, dtype }: { blocks: number; dtype: FloatDType },
  ) {
    // The scope gives back what was made before a refusal.
    this.layers = backend.scope(() =>
      state.flatMap((spec) => {
        if (spec.kind !== kind || blocks === 0) return [];
        const { keys, values } = keyValueShapes(spec, blocks);
        return [{ keys: backend.allocate(keys, dtype), values: backend.allocate(values, dtype) }];
      }),
    );
    for (const { keys, values } of this.layers) {
      keys.keep();
      values.keep();
    }
    this.#free = Array.from({ length: blocks }, (_, i) => blocks - 1 - i);
    this.#references = new Int32Array(blocks);
  }

  get blocks(): number {
    return this.#references.length;
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
        blocks: this.blocks,
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

/** The paged cache: keys and values of tokens, and those of the texts that encoders read, in blocks of their own. */
export class KvCache extends BlockPool {
  /** What decoders read of encoders. */
  readonly cross: BlockPool;

  /** @param options.crossBlocks default 0, for models without an encoder */
  constructor(
    model: Pick<Model, 'state'>,
    backend: Backend,
    readonly options: { blocks: number; crossBlocks?: number; dtype: FloatDType },
  ) {
    super(model, 'kv', backend, options);
    const { crossBlocks: blocks = 0, dtype } = options;
    try {
      this.cross = new BlockPool(model, 'cross', backend, { blocks, dtype });
    } catch (error) {
      super.dispose();
      throw error;
    }
  }

  override dispose(): void {
    super.dispose();
    this.cross.dispose();
  }
}

/** The layers of a cache by kind. */
export interface CacheLayers {
  readonly layers: readonly KvLayer[];
  readonly cross: { readonly layers: readonly KvLayer[] };
}

/** The state of a pass whose rows have blocks of a cache. */
export class PagedState implements State {
  /**
   * @param cache the layers of `kv` and `cross`
   * @param rows as the keys of each kind are seen; a kind that the pass has no business with is left out
   */
  constructor(
    private readonly cache: CacheLayers,
    private readonly rows: { readonly kv?: PagedRows; readonly cross?: PagedRows },
  ) {}

  kv(index: number): LayerKeys {
    return keysOf(this.cache.layers[index], this.rows.kv);
  }

  cross(index: number): LayerKeys {
    return keysOf(this.cache.cross.layers[index], this.rows.cross);
  }
}

function keysOf(layer: KvLayer | undefined, rows: PagedRows | undefined): LayerKeys {
  if (layer && rows) return { layer, rows };
  throw new UnsupportedError('kvCache', 'this pass keeps no such keys');
}
