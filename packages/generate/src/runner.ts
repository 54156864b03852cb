import { OutOfMemoryError } from '@q/config';
import { blocksFor, isEncoderDecoder, lastRows, type CausalLM } from '@q/models';
import { sample, selectRows, type Backend, type FloatDType } from '@q/tensor';
import { KvCache } from './cache.js';
import { samplingState } from './decoder.js';
import { Decoders } from './decoders.js';
import type { Job } from './job.js';
import { passInto, passThrough, type CachedSlice } from './pass.js';
import type { Sequence } from './sequence.js';

export interface RunnerOptions {
  readonly dtype: FloatDType;
  readonly kvDtype: FloatDType;
  readonly maxBatchSize: number;
  readonly prefillChunk: number;
}

/** The job under way, the cache that it uses, and the longest context and encoder's text of its sequences. */
interface Run {
  readonly job: Job;
  readonly cache: KvCache;
  readonly maxContext: number;
  readonly maxSource: number;
}

interface Part {
  readonly sequence: Sequence;
  readonly slice: CachedSlice;
}

const isComplete = ({ sequence, slice }: Part): boolean => slice.start + slice.ids.length === sequence.length;

/**
 * Computes jobs, one after the other: prompts are prefilled in chunks, then all sequences of the job decode together
 * and leave as they finish, which lets waiting ones in. Keeps the cache and the recorded programs for the next job.
 */
export class Runner {
  #cache: KvCache | undefined;
  readonly #decoders: Decoders;

  constructor(
    private readonly model: CausalLM,
    private readonly backend: Backend,
    private readonly options: RunnerOptions,
  ) {
    this.#decoders = new Decoders(model, backend, options.dtype);
  }

  /** Resolves when all sequences of the job have ended; rejects when it is stopped. Its blocks are free then. */
  async run(job: Job): Promise<void> {
    this.backend.resetPeak();
    try {
      await this.#schedule(job);
    } catch (error) {
      // A cache that was made for this job may be what leaves too little for the next one.
      if (error instanceof OutOfMemoryError) this.dispose();
      throw error;
    } finally {
      for (const { blocks, sourceBlocks } of job.sequences) {
        this.#cache?.give(blocks);
        this.#cache?.cross.give(sourceBlocks);
      }
    }
  }

  /** Frees the cache and the programs. */
  dispose(): void {
    this.#decoders.dispose();
    this.#cache?.dispose();
    this.#cache = undefined;
  }

  async #schedule(job: Job): Promise<void> {
    const cache = this.#cacheFor(job.sequences);
    const maxContext = job.sequences.reduce((most, { capacity }) => Math.max(most, capacity), 0);
    const maxSource = job.sequences.reduce((most, { sourceLength }) => Math.max(most, sourceLength), 0);
    const run: Run = { job, cache, maxContext, maxSource };
    const waiting = [...job.sequences];
    let running: Sequence[] = [];
    while (waiting.length > 0 || running.length > 0) {
      const admitted: Sequence[] = [];
      const unread: Sequence[] = [];
      while (
        waiting.length > 0 &&
        running.length + admitted.length < this.options.maxBatchSize &&
        blocksFor(waiting[0].capacity) <= cache.freeBlocks &&
        blocksFor(waiting[0].sourceLength) <= cache.cross.freeBlocks
      ) {
        const next = waiting.shift()!;
        next.blocks = cache.take(next.capacity);
        admitted.push(next);
        if (takeSource(next, [...running, ...admitted], cache)) unread.push(next);
      }
      await this.#encode(run, unread);
      const outgrown = running.filter(({ length }) => this.#isRebuilt(length));
      for (const sequence of outgrown) sequence.prefilled = 0;
      await this.#prefill(run, [...outgrown, ...admitted]);
      running = [...running, ...admitted].filter((sequence) => stays(sequence, cache));
      if (running.some(({ length }) => this.#isRebuilt(length))) continue;
      if (running.length > 0) await this.#decode(run, running);
      running = running.filter((sequence) => stays(sequence, cache));
    }
  }

  /** Runs the encoder over the texts of sequences, each text whole: later tokens change what earlier ones become. */
  async #encode(run: Run, sequences: readonly Sequence[]): Promise<void> {
    const { backend, model, options } = this;
    if (sequences.length === 0 || !isEncoderDecoder(model)) return;
    const started = performance.now();
    for (const group of groupsOf(sequences, options.prefillChunk)) {
      run.job.throwIfStopped();
      const slices = group.map(({ request, sourceBlocks }) => ({
        ids: request.encoderIds!,
        start: 0,
        blocks: sourceBlocks,
      }));
      const pass = () =>
        passInto({ backend, dtype: options.dtype, cache: run.cache }, slices, (given) => void model.encode(given));
      backend.cancellable(run.job.signal, () => backend.scope(pass));
      await backend.flush();
    }
    run.job.throwIfStopped();
    run.job.clock.prefillMs += performance.now() - started;
  }

  /** Whether the keys kept of a text are void once it has so many tokens. */
  #isRebuilt(length: number): boolean {
    return this.model.rebuildAt?.includes(length) ?? false;
  }

  /** Runs prompts chunk by chunk, and texts that are computed anew; each gives its next token. */
  async #prefill(run: Run, sequences: readonly Sequence[]): Promise<void> {
    const { job } = run;
    const waiting = [...sequences];
    while (waiting.length > 0) {
      job.throwIfStopped();
      const started = performance.now();
      const chunk = this.#nextChunk(waiting);
      const complete = chunk.filter(isComplete).map(({ sequence }) => sequence);
      const tokens = await this.#prefillPass(run, chunk, complete);
      job.throwIfStopped();
      for (const { sequence, slice } of chunk) sequence.prefilled = slice.start + slice.ids.length;
      waiting.splice(0, complete.length);
      job.clock.prefillMs += performance.now() - started;
      for (const [i, sequence] of complete.entries()) this.#accept(job, sequence, firstToken(sequence, tokens[i]));
    }
  }

  /** The next prompt tokens in order, at most `prefillChunk`; sequences at the front are completed first. */
  #nextChunk(waiting: readonly Sequence[]): Part[] {
    let room = this.options.prefillChunk;
    const chunk: Part[] = [];
    for (const sequence of waiting) {
      if (room === 0) break;
      const { ids } = sequence;
      const part = ids.slice(sequence.prefilled, sequence.prefilled + room);
      // Rotary scalings that depend on the length go by the whole prompt, however it is cut.
      const { prefilled: start, blocks, source } = sequence;
      const slice = { ids: part, start, blocks, source, wholeLength: ids.length };
      chunk.push({ sequence, slice });
      room -= part.length;
    }
    return chunk;
  }

  async #prefillPass(run: Run, chunk: readonly Part[], complete: readonly Sequence[]): Promise<Int32Array> {
    const { backend, model, options } = this;
    const slices = chunk.map(({ slice }) => slice);
    const pass = () =>
      passThrough({ backend, dtype: options.dtype, cache: run.cache }, slices, blocksFor(run.maxContext), (given) => {
        const hidden = model.forward(given);
        if (complete.length === 0) return undefined;
        const rows = backend.tensor(lastRows(slices).slice(0, complete.length), [complete.length], 'i32');
        return sample(model.logits(selectRows(hidden, rows)), samplingState(backend, complete, run.maxContext));
      });
    const sampled = backend.cancellable(run.job.signal, () => backend.scope(pass));
    if (!sampled) {
      await backend.flush();
      return new Int32Array(0);
    }
    try {
      return await sampled.data();
    } finally {
      sampled.dispose();
    }
  }

  /** Decodes until a sequence ends or must be computed anew. The device is always one step ahead of the host. */
  async #decode({ job, cache, ...most }: Run, sequences: readonly Sequence[]): Promise<void> {
    let mark = performance.now();
    const decoder = this.#decoders.start(sequences, cache, { tokens: most.maxContext, sourceTokens: most.maxSource });
    const step = () => this.backend.cancellable(job.signal, () => decoder.step());
    let ahead: Promise<Int32Array> | undefined;
    try {
      let current: Promise<Int32Array> | undefined = step();
      while (current) {
        const last = sequences.every(({ newIds, request }) => newIds.length + 1 >= request.maxNewTokens);
        const ends = sequences.some(({ finishReason, length }) => finishReason || this.#isRebuilt(length + 1));
        ahead = last || ends ? undefined : step();
        ahead?.catch(() => undefined);
        const tokens: Int32Array = await current;
        job.throwIfStopped();
        job.clock.decodeMs += performance.now() - mark;
        for (const [row, sequence] of sequences.entries())
          if (!sequence.finishReason) this.#accept(job, sequence, tokens[row]);
        const room = job.channel.room();
        if (room) await room;
        mark = performance.now();
        current = ahead;
        ahead = undefined;
      }
    } finally {
      await ahead?.catch(() => undefined);
    }
  }

  #accept(job: Job, sequence: Sequence, tokenId: number): void {
    job.accept(sequence, tokenId, () => this.backend.memory().peakBytes);
  }

  /** The cache, made larger when these sequences need more than it has. */
  #cacheFor(sequences: readonly Sequence[]): KvCache {
    const most = (tokens: readonly number[]): number =>
      tokens
        .map(blocksFor)
        .sort((a, b) => b - a)
        .slice(0, this.options.maxBatchSize)
        .reduce((a, b) => a + b, 0);
    const blocks = most(sequences.map(({ capacity }) => capacity));
    const crossBlocks = most(sequences.map(({ sourceLength }) => sourceLength));
    if (this.#cache && this.#cache.blocks >= blocks && this.#cache.cross.blocks >= crossBlocks) return this.#cache;
    this.dispose();
    return (this.#cache = new KvCache(this.model, this.backend, { blocks, crossBlocks, dtype: this.options.kvDtype }));
  }
}

/**
 * Gives a sequence the blocks of its encoder's text: those of another one that has the same, or new ones.
 * @returns whether the encoder must fill them
 */
function takeSource(sequence: Sequence, others: readonly Sequence[], { cross }: KvCache): boolean {
  const { encoderIds } = sequence.request;
  if (!encoderIds) return false;
  const same = others.find(({ request, sourceBlocks }) => request.encoderIds === encoderIds && sourceBlocks.length > 0);
  if (!same) {
    sequence.sourceBlocks = cross.take(encoderIds.length);
    return true;
  }
  sequence.sourceBlocks = [...same.sourceBlocks];
  cross.share(sequence.sourceBlocks);
  return false;
}

/** Groups of texts with at most so many tokens, or of one text that has more. */
function groupsOf(sequences: readonly Sequence[], tokens: number): Sequence[][] {
  const groups: Sequence[][] = [];
  let room = 0;
  for (const sequence of sequences) {
    if (groups.length === 0 || sequence.sourceLength > room) {
      groups.push([]);
      room = tokens;
    }
    groups[groups.length - 1].push(sequence);
    room -= sequence.sourceLength;
  }
  return groups;
}

/** The first new token: what the logits gave, unless the request forces another. Damage shows in either case. */
const firstToken = ({ request, newIds }: Sequence, tokenId: number): number =>
  tokenId < 0 || newIds.length > 0 ? tokenId : (request.forcedFirstTokenId ?? tokenId);

/** Gives the blocks of a finished sequence back. */
function stays(sequence: Sequence, cache: KvCache): boolean {
  if (!sequence.finishReason) return true;
  cache.give(sequence.blocks);
  cache.cross.give(sequence.sourceBlocks);
  sequence.blocks = [];
  sequence.sourceBlocks = [];
  return false;
}
