import type { Backend, PagedRows, Rows, Tensor } from '@q/tensor';

/** One sequence's part of a forward pass. */
export interface Slice {
  /** Ids to run now; the last of them is at position start + ids.length - 1. */
  readonly ids: ArrayLike<number>;
  /** Tokens before them. */
  readonly start: number;
  /** Positions of the ids where they are not start, start + 1 and so on. */
  readonly positions?: ArrayLike<number>;
}

/** Rows whose next-token logits are wanted: the last row of each slice. */
export const lastRows = (slices: readonly Slice[]): number[] => {
  let row = -1;
  return slices.map(({ ids }) => (row += ids.length));
};

/** The numbers of slices, one list behind the other. */
export function packNumbers(lists: readonly ArrayLike<number>[]): Int32Array {
  const packed = new Int32Array(lists.reduce((sum, { length }) => sum + length, 0));
  let row = 0;
  for (const list of lists) {
    packed.set(list, row);
    row += list.length;
  }
  return packed;
}

/** Positions of the rows; they are their slots unless slices say otherwise. */
function positionsOf(
  slices: readonly Slice[],
  slots: Tensor<'i32'>,
  i32: (values: Int32Array) => Tensor<'i32'>,
): Pick<Rows, 'positions' | 'slots'> {
  if (slices.every(({ positions }) => positions === undefined)) return { positions: slots };
  const lists = slices.map(({ ids, start, positions }) => positions ?? Array.from(ids, (_, i) => start + i));
  return { positions: i32(packNumbers(lists)), slots };
}

/** Packs slices into rows on the device; the tensors belong to the current scope. */
export function packRows(backend: Backend, slices: readonly Slice[]): { rows: Rows; tokenIds: Tensor<'i32'> } {
  const tokenIds = packNumbers(slices.map(({ ids }) => ids));
  const tokens = tokenIds.length;
  const slots = new Int32Array(tokens);
  const sequenceOf = new Int32Array(tokens);
  const starts = new Int32Array(slices.length + 1);
  const contexts = new Int32Array(slices.length);
  let row = 0;
  slices.forEach(({ ids, start }, sequence) => {
    for (let i = 0; i < ids.length; i++, row++) {
      slots[row] = start + i;
      sequenceOf[row] = sequence;
    }
    starts[sequence + 1] = row;
    contexts[sequence] = start + ids.length;
  });
  const i32 = (values: Int32Array) => backend.tensor(values, [values.length], 'i32');
  const rows = {
    tokens,
    sequences: slices.length,
    maxQuery: slices.reduce((max, { ids }) => Math.max(max, ids.length), 0),
    maxContext: contexts.reduce((max, context) => Math.max(max, context), 0),
    ...positionsOf(slices, i32(slots), i32),
    sequenceOf: i32(sequenceOf),
    sequenceStarts: i32(starts),
    contextLengths: i32(contexts),
  };
  return { rows, tokenIds: i32(tokenIds) };
}

/** Rows with the cache blocks of each sequence; the table belongs to the current scope. */
export function pageRows(
  backend: Backend,
  rows: Rows,
  blocks: readonly (readonly number[])[],
  maxBlocks: number,
): PagedRows {
  const tables = new Int32Array(rows.sequences * maxBlocks);
  blocks.forEach((list, sequence) => tables.set(list, sequence * maxBlocks));
  return { ...rows, blockTables: backend.tensor(tables, [rows.sequences, maxBlocks], 'i32') };
}
