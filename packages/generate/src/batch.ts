import type { Backend, Batch } from '@q/tensor';

/** One sequence's part of a forward pass. */
export interface Slice {
  /** Ids to run now; the last of them is at position start + ids.length - 1. */
  readonly ids: ArrayLike<number>;
  /** Tokens already in the cache. */
  readonly start: number;
  readonly blocks: readonly number[];
}

/** Rows of a batch whose next-token logits are wanted: the last row of each slice. */
export const lastRows = (slices: readonly Slice[]): number[] => {
  let row = -1;
  return slices.map(({ ids }) => (row += ids.length));
};

/** Packs slices into a batch on the device; the tensors belong to the current scope. */
export function packBatch(backend: Backend, slices: readonly Slice[], maxBlocks: number): Batch {
  const tokens = slices.reduce((sum, { ids }) => sum + ids.length, 0);
  const tokenIds = new Int32Array(tokens);
  const positions = new Int32Array(tokens);
  const sequenceOf = new Int32Array(tokens);
  const starts = new Int32Array(slices.length + 1);
  const contexts = new Int32Array(slices.length);
  const tables = new Int32Array(slices.length * maxBlocks);
  let row = 0;
  slices.forEach(({ ids, start, blocks }, sequence) => {
    for (let i = 0; i < ids.length; i++, row++) {
      tokenIds[row] = ids[i];
      positions[row] = start + i;
      sequenceOf[row] = sequence;
    }
    starts[sequence + 1] = row;
    contexts[sequence] = start + ids.length;
    tables.set(blocks, sequence * maxBlocks);
  });
  const i32 = (values: Int32Array, shape: readonly number[] = [values.length]) => backend.tensor(values, shape, 'i32');
  return {
    tokens,
    sequences: slices.length,
    maxQuery: slices.reduce((max, { ids }) => Math.max(max, ids.length), 0),
    maxContext: contexts.reduce((max, context) => Math.max(max, context), 0),
    tokenIds: i32(tokenIds),
    positions: i32(positions),
    sequenceOf: i32(sequenceOf),
    sequenceStarts: i32(starts),
    contextLengths: i32(contexts),
    blockTables: i32(tables, [slices.length, maxBlocks]),
  };
}
