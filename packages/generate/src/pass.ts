import {
  Derived,
  packNumbers,
  packRows,
  pageRows,
  type Encoded,
  type EncoderDecoder,
  type InputName,
  type Pass,
  type Slice,
} from '@q/models';
import type { Backend, FloatDType, PagedRows, Rows, Tensor } from '@q/tensor';
import { PagedState, type CacheLayers } from './cache.js';

/** Blocks of an encoder's text, for the decoder that reads it. */
export interface SourceBlocks {
  readonly blocks: readonly number[];
  /** Tokens in them. */
  readonly length: number;
}

/** One sequence's part of a pass, with its cache blocks. */
export interface CachedSlice extends Slice {
  readonly blocks: readonly number[];
  /** The length that decides scalings by length, when it is not the one after the pass. */
  readonly wholeLength?: number;
  /** What its decoder reads; all slices of a pass have one, or none. */
  readonly source?: SourceBlocks;
}

interface PassOptions {
  readonly backend: Backend;
  readonly dtype: FloatDType;
}

const lengthAfter = ({ start, ids }: Slice): number => start + ids.length;

/** Runs `fn` with the pass of slices that continue in a cache; the pass lives as long as `fn`. */
export function passThrough<T>(
  { backend, dtype, cache }: PassOptions & { cache: CacheLayers },
  slices: readonly CachedSlice[],
  maxBlocks: number,
  fn: (pass: Pass) => T,
  hiddenStates?: Tensor[],
): T {
  const { rows, tokenIds } = packRows(backend, slices);
  const blocks = slices.map((slice) => slice.blocks);
  const sources = slices.flatMap(({ source }) => (source ? [source] : []));
  const state = new PagedState(cache, {
    kv: pageRows(backend, rows, blocks, maxBlocks),
    cross: sources.length > 0 ? rowsToSources(backend, rows, sources) : undefined,
  });
  using derived = new Derived(
    backend,
    slices.map((slice) => slice.wholeLength ?? lengthAfter(slice)),
  );
  return fn({ backend, dtype, rows, inputs: { tokenIds }, state, derived, hiddenStates });
}

/** Rows of decoders as the keys of their encoders see them. */
function rowsToSources(backend: Backend, rows: Rows, sources: readonly SourceBlocks[]): PagedRows {
  const lengths = sources.map(({ length }) => length);
  const most = sources.reduce((max, { blocks }) => Math.max(max, blocks.length), 0);
  return {
    ...pageRows(
      backend,
      rows,
      sources.map(({ blocks }) => blocks),
      most,
    ),
    contextLengths: backend.tensor(lengths, [lengths.length], 'i32'),
    maxContext: lengths.reduce((max, length) => Math.max(max, length), 0),
  };
}

/** A whole text for an encoder, with the blocks into which goes what decoders read of it. */
export type SourceSlice = Slice & { readonly blocks: readonly number[] };

/** Runs `fn` with the pass of an encoder that leaves keys and values for decoders. */
export function passInto<T>(
  { backend, dtype, cache }: PassOptions & { cache: CacheLayers },
  slices: readonly SourceSlice[],
  fn: (pass: Pass) => T,
  hiddenStates?: Tensor[],
): T {
  const { rows, tokenIds } = packRows(backend, slices);
  const blocks = slices.map((slice) => slice.blocks);
  const most = blocks.reduce((max, { length }) => Math.max(max, length), 0);
  const state = new PagedState(cache, { cross: pageRows(backend, rows, blocks, most) });
  using derived = new Derived(backend, slices.map(lengthAfter));
  return fn({ backend, dtype, rows, inputs: { tokenIds }, state, derived, hiddenStates });
}

/** What a pass over whole sequences may have beside their ids. */
export interface PassExtras {
  /** Numbers for each id, by name. */
  readonly inputs?: Readonly<Partial<Record<InputName, readonly ArrayLike<number>[]>>>;
  /** See {@link Pass.hiddenStates}. */
  readonly hiddenStates?: Tensor[];
  /** See {@link Pass.source}. */
  readonly source?: Encoded;
}

/** Runs `fn` with a pass over whole sequences that leaves nothing behind; the pass lives as long as `fn`. */
export function passOver<T>(
  { backend, dtype }: PassOptions,
  slices: readonly Slice[],
  fn: (pass: Pass) => T,
  { inputs = {}, hiddenStates, source }: PassExtras = {},
): T {
  const { rows, tokenIds } = packRows(backend, slices);
  const more = Object.entries(inputs).map(([name, lists]) => {
    const values = packNumbers(lists);
    return [name, backend.tensor(values, [values.length], 'i32')] as const;
  });
  using derived = new Derived(backend, slices.map(lengthAfter));
  const all = { tokenIds, ...Object.fromEntries(more) };
  return fn({ backend, dtype, rows, inputs: all, source, derived, hiddenStates });
}

/** Takes the hidden states of the layers of each stack; see {@link Pass.hiddenStates}. */
export interface PairStates {
  readonly encoder?: Tensor[];
  readonly decoder?: Tensor[];
}

/**
 * Runs an encoder over whole texts and its decoder over what belongs to each, and leaves nothing behind.
 * @param sources for the encoder
 * @param targets for the decoder, one for each source
 * @returns what encoder and decoder give, packed: [T', hidden] and [T, hidden]
 */
export const passOverPairs = (
  options: PassOptions,
  model: EncoderDecoder,
  sources: readonly Slice[],
  targets: readonly Slice[],
  states: PairStates = {},
): { encoded: Tensor; hidden: Tensor } =>
  passOver(
    options,
    sources,
    (pass) => {
      const encoded = model.encode(pass);
      const source = { pass, hidden: encoded };
      const extras = { source, hiddenStates: states.decoder };
      return { encoded, hidden: passOver(options, targets, (given) => model.forward(given), extras) };
    },
    { hiddenStates: states.encoder },
  );
