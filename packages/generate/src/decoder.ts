import { blocksFor, Derived, type CausalLM, type Pass } from '@q/models';
import {
  advance,
  disposeSegments,
  replaySegments,
  sample,
  type Backend,
  type FloatDType,
  type PagedRows,
  type SamplingState,
  type Segment,
  type Tensor,
} from '@q/tensor';
import { PagedState, type KvCache } from './cache.js';
import type { Sequence } from './sequence.js';

/**
 * Below this temperature a row takes the likeliest token: dividing by less would outgrow float32, and logits that
 * differ by more than rounding are decided already.
 */
const greedyTemperature = 1e-5;

/** Larger numbers would be infinity in float32, and so no temperature and no penalty. */
const largestFloat = 2 ** 128 - 2 ** 104;

const iota = (count: number) => Int32Array.from({ length: count }, (_, i) => i);

/** Whether any sequence needs its earlier tokens on the device. */
export const needsHistory = (sequences: readonly Sequence[]): boolean =>
  sequences.some(({ request }) => request.sampling.repetitionPenalty !== 1);

/** Sampling options of sequences as numbers, in the layout of the `sample` command. */
function samplingValues(sequences: readonly Sequence[], historyCapacity: number) {
  const options = sequences.map(({ request }) => request.sampling);
  const history = new Int32Array(sequences.length * historyCapacity);
  if (historyCapacity > 0)
    sequences.forEach(({ request, newIds }, row) => history.set([...request.ids, ...newIds], row * historyCapacity));
  return {
    floats: options.flatMap(({ temperature, topP, minP, repetitionPenalty }) => [
      Math.min(temperature, largestFloat),
      topP,
      minP,
      Math.min(Math.max(repetitionPenalty, 1 / largestFloat), largestFloat),
    ]),
    ints: options.flatMap(({ doSample, temperature, topK, seed }) => [
      Number(doSample && temperature >= greedyTemperature),
      topK,
      seed | 0,
      Math.floor(seed / 2 ** 32),
    ]),
    counters: sequences.map(({ newIds }) => newIds.length),
    history,
    historyLengths: sequences.map(({ length }) => length),
  };
}

/** Sampling options of sequences as device tensors of the current scope. */
export function samplingState(
  backend: Backend,
  sequences: readonly Sequence[],
  historyCapacity: number,
): SamplingState {
  const count = sequences.length;
  const values = samplingValues(sequences, needsHistory(sequences) ? historyCapacity : 0);
  const withHistory = values.history.length > 0;
  return {
    floats: backend.tensor(values.floats, [count, 4], 'f32'),
    ints: backend.tensor(values.ints, [count, 4], 'i32'),
    counters: backend.tensor(values.counters, [count], 'i32'),
    history: withHistory ? backend.tensor(values.history, [count, historyCapacity], 'i32') : undefined,
    historyLengths: withHistory ? backend.tensor(values.historyLengths, [count], 'i32') : undefined,
  };
}

/** Block tables [sequences, width] of lists of blocks. */
function tablesOf(lists: readonly (readonly number[])[], width: number): Int32Array {
  const tables = new Int32Array(lists.length * width);
  lists.forEach((blocks, row) => tables.set(blocks, row * width));
  return tables;
}

/** What a decoder is made for; sequences that fit can take turns in it. */
export interface DecoderShape {
  readonly count: number;
  /** Cache blocks of a sequence. */
  readonly maxBlocks: number;
  /** Upper bound of the context lengths. */
  readonly maxContext: number;
  readonly withHistory: boolean;
  /** Upper bound of the encoder's texts; 0 without encoder. */
  readonly maxSource: number;
}

/**
 * Decodes `count` sequences together, one token each per step. A step is recorded: its inputs live on the device, the
 * sampled tokens are fed back there, and the host only reads them. {@link start} puts other sequences in; the recording
 * stays.
 */
export class Decoder {
  readonly #rows: PagedRows;
  /** The rows as the keys of the encoder see them. */
  readonly #source: PagedRows | undefined;
  readonly #tokenIds: Tensor<'i32'>;
  readonly #pass: Pass;
  readonly #state: SamplingState;
  readonly #sampled: Tensor<'i32'>;
  readonly #owned: readonly Tensor[];
  #segments: readonly Segment[] | undefined;
  #lengths: readonly number[] = [];
  #everRan = false;
  #steps = 0;

  constructor(
    private readonly model: CausalLM,
    private readonly backend: Backend,
    private readonly options: DecoderShape & { cache: KvCache; dtype: FloatDType },
  ) {
    const { count, maxBlocks, maxContext, withHistory, maxSource } = options;
    const i32 = (shape: readonly number[]) => backend.allocate(shape, 'i32') as Tensor<'i32'>;
    // The scope gives back what was made before a refusal.
    const made = backend.scope(() => ({
      tokenIds: i32([count]),
      rows: {
        positions: i32([count]),
        sequenceOf: i32([count]),
        sequenceStarts: i32([count + 1]),
        contextLengths: i32([count]),
        blockTables: i32([count, maxBlocks]),
      },
      state: {
        floats: backend.allocate([count, 4], 'f32'),
        ints: i32([count, 4]),
        counters: i32([count]),
        ...(withHistory && { history: i32([count, maxContext]), historyLengths: i32([count]) }),
      },
      sampled: i32([count]),
      source:
        maxSource > 0 ? { contextLengths: i32([count]), blockTables: i32([count, blocksFor(maxSource)]) } : undefined,
    }));
    const { tokenIds, rows, state, sampled, source } = made;
    this.#owned = [tokenIds, ...[rows, state, source ?? {}].flatMap(Object.values<Tensor>), sampled];
    for (const tensor of this.#owned) tensor.keep();
    this.#rows = { tokens: count, sequences: count, maxQuery: 1, maxContext, ...rows };
    this.#source = source && { ...this.#rows, ...source, maxContext: maxSource };
    this.#tokenIds = tokenIds;
    this.#state = state;
    this.#sampled = sampled;
    this.#pass = {
      backend,
      dtype: options.dtype,
      rows: this.#rows,
      inputs: { tokenIds },
      state: new PagedState(options.cache, { kv: this.#rows, cross: this.#source }),
      derived: new Derived(backend, []),
    };
    backend.assign(this.#rows.sequenceOf, iota(count));
    backend.assign(this.#rows.sequenceStarts, iota(count + 1));
  }

  /** Puts sequences in, each with its last token still to be run. */
  start(sequences: readonly Sequence[]): void {
    const { backend } = this;
    const { maxBlocks, maxContext, withHistory } = this.options;
    const tables = tablesOf(
      sequences.map(({ blocks }) => blocks),
      maxBlocks,
    );
    const values = samplingValues(sequences, withHistory ? maxContext : 0);
    const { positions, contextLengths, blockTables } = this.#rows;
    const { floats, ints, counters, history, historyLengths } = this.#state;
    this.#lengths = sequences.map(({ length }) => length);
    this.#steps = 0;
    backend.assign(
      this.#tokenIds,
      sequences.map(({ newIds }) => newIds[newIds.length - 1]),
    );
    backend.assign(
      positions,
      this.#lengths.map((length) => length - 1),
    );
    backend.assign(contextLengths, this.#lengths);
    backend.assign(blockTables, tables);
    backend.assign(floats, values.floats);
    backend.assign(ints, values.ints);
    backend.assign(counters, values.counters);
    if (history) backend.assign(history, values.history);
    if (historyLengths) backend.assign(historyLengths, values.historyLengths);
    this.#startSources(sequences);
  }

  #startSources(sequences: readonly Sequence[]): void {
    if (!this.#source) return;
    const blocks = sequences.map(({ sourceBlocks }) => sourceBlocks);
    const lengths = sequences.map(({ sourceLength }) => sourceLength);
    this.backend.assign(this.#source.contextLengths, lengths);
    this.backend.assign(this.#source.blockTables, tablesOf(blocks, blocksFor(this.options.maxSource)));
  }

  /** Queues one step; resolves with the token of each sequence. */
  step(): Promise<Int32Array> {
    if (this.#everRan) replaySegments((this.#segments ??= this.#record()));
    else this.#runDirectly();
    this.#steps += 1;
    return this.#sampled.data();
  }

  dispose(): void {
    disposeSegments(this.#segments ?? []);
    this.#pass.derived.dispose();
    for (const tensor of this.#owned) tensor.dispose();
  }

  /** The very first step, so that the pool holds what the recording needs, and the tables of the pass are known. */
  #runDirectly(): void {
    this.#refresh();
    this.#forward();
    this.#everRan = true;
  }

  /** The step as segments: one program, since all layers are on one device. */
  #record(): readonly Segment[] {
    const forward = () => this.#forward();
    // A check of each layer reads results, which no recording can.
    const layers: Segment = this.backend.checksFinite
      ? { kind: 'host', run: forward }
      : { kind: 'program', program: this.backend.capture(forward) };
    return this.#pass.derived.isEmpty ? [layers] : [{ kind: 'host', run: () => this.#refresh() }, layers];
  }

  /** Makes the tables anew that follow from the lengths as they are now. */
  #refresh(): void {
    this.#pass.derived.refresh(this.#lengths.map((length) => length + this.#steps));
  }

  #forward(): void {
    this.backend.scope(() => {
      const hidden = this.model.forward(this.#pass);
      const tokens = sample(this.model.logits(hidden), this.#state);
      this.backend.submit('copy', { src: tokens.ref(), out: this.#sampled.ref() });
      advance(tokens, { tokenIds: this.#tokenIds, ...this.#rows }, this.#state);
    });
  }
}
