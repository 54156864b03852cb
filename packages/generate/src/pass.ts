import { Derived, packNumbers, packRows, pageRows, type InputName, type Pass, type Slice } from '@q/models';
import type { Backend, FloatDType, Tensor } from '@q/tensor';
import { PagedState, type KvCache } from './cache.js';

/** One sequence's part of a pass, with its cache blocks. */
export interface CachedSlice extends Slice {
  readonly blocks: readonly number[];
  /** The length that decides scalings by length, when it is not the one after the pass. */
  readonly wholeLength?: number;
}

const lengthAfter = ({ start, ids }: Slice): number => start + ids.length;

/** Runs `fn` with the pass of slices that continue in a cache; the pass lives as long as `fn`. */
export function passThrough<T>(
  { backend, dtype, cache }: { backend: Backend; dtype: FloatDType; cache: KvCache },
  slices: readonly CachedSlice[],
  maxBlocks: number,
  fn: (pass: Pass) => T,
  hiddenStates?: Tensor[],
): T {
  const { rows, tokenIds } = packRows(backend, slices);
  const blocks = slices.map((slice) => slice.blocks);
  const state = new PagedState(cache, pageRows(backend, rows, blocks, maxBlocks));
  using derived = new Derived(
    backend,
    slices.map((slice) => slice.wholeLength ?? lengthAfter(slice)),
  );
  return fn({ backend, dtype, rows, inputs: { tokenIds }, state, derived, hiddenStates });
}

/** What a pass over whole sequences may have beside their ids. */
export interface PassExtras {
  /** Numbers for each id, by name. */
  readonly inputs?: Readonly<Partial<Record<InputName, readonly ArrayLike<number>[]>>>;
  /** See {@link Pass.hiddenStates}. */
  readonly hiddenStates?: Tensor[];
}

/** Runs `fn` with a pass over whole sequences that leaves nothing behind; the pass lives as long as `fn`. */
export function passOver<T>(
  { backend, dtype }: { backend: Backend; dtype: FloatDType },
  slices: readonly Slice[],
  fn: (pass: Pass) => T,
  { inputs = {}, hiddenStates }: PassExtras = {},
): T {
  const { rows, tokenIds } = packRows(backend, slices);
  const more = Object.entries(inputs).map(([name, lists]) => {
    const values = packNumbers(lists);
    return [name, backend.tensor(values, [values.length], 'i32')] as const;
  });
  using derived = new Derived(backend, slices.map(lengthAfter));
  return fn({ backend, dtype, rows, inputs: { tokenIds, ...Object.fromEntries(more) }, derived, hiddenStates });
}
