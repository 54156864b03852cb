import { ConfigError } from '@q/config';
import type { CausalLM } from '@q/models';
import { sample, selectRows, type Backend, type FloatDType } from '@q/tensor';
import { lastRows, packBatch, type Slice } from './batch.js';
import { blocksFor, KvCache } from './cache.js';
import { samplingState } from './decoder.js';
import { Decoders } from './decoders.js';
import type { GenerationRequest, GenerationStats, GenerationStep, TokenDecoder } from './options.js';
import { Sequence } from './sequence.js';

export interface EngineOptions {
  /** Dtype of activations. */
  readonly dtype: FloatDType;
  /** Dtype of cached keys and values. Default: the activation dtype. */
  readonly kvDtype?: FloatDType;
  /** Most sequences that decode together. Default 32. */
  readonly maxBatchSize?: number;
  /**
   * Most prompt tokens of one forward pass. Default 512 on a CPU, so that an abort takes effect soon, and 4096 on a
   * GPU, to fill it.
   */
  readonly prefillChunk?: number;
}

export const engineDefaults = { maxBatchSize: 32, prefillChunk: { cpu: 512, cuda: 4096 } } as const;

interface Clock {
  prefillMs: number;
  decodeMs: number;
}

/**
 * Runs requests on one model: prompts are prefilled in chunks, then all sequences decode together and leave as they
 * finish, which lets waiting ones in. Nothing is padded; a sequence's tokens do not depend on its neighbours.
 */
export class Engine {
  #cache: KvCache | undefined;
  readonly #decoders: Decoders;
  #busy = false;

  constructor(
    readonly model: CausalLM,
    readonly backend: Backend,
    readonly options: EngineOptions,
  ) {
    this.#decoders = new Decoders(model, backend, options.dtype);
  }

  /**
   * Generates for all requests and yields every token as it becomes known. Leaving the loop early frees the sequences.
   * @throws ConfigError for an empty prompt or a context that the model does not have; the signal's reason on abort.
   */
  async *run(
    requests: readonly GenerationRequest[],
    { decoder, signal }: { decoder?: TokenDecoder; signal?: AbortSignal } = {},
  ): AsyncGenerator<GenerationStep, void> {
    if (this.#busy)
      throw new ConfigError('generate', 'this model is already generating', {
        fix: 'await the first generation, or give all prompts to one call',
      });
    for (const request of requests) this.#check(request);
    signal?.throwIfAborted();
    const sequences = requests.map((request, index) => new Sequence(index, request, decoder));
    const clock: Clock = { prefillMs: 0, decodeMs: 0 };
    this.#busy = true;
    this.backend.resetPeak();
    try {
      yield* withStats(this.#schedule(sequences, clock, signal), sequences, () => this.#stats(sequences, clock));
    } finally {
      for (const { blocks } of sequences) this.#cache?.give(blocks);
      this.#busy = false;
    }
  }

  /** Frees the cache. */
  dispose(): void {
    this.#decoders.dispose();
    this.#cache?.dispose();
    this.#cache = undefined;
  }

  async *#schedule(
    sequences: readonly Sequence[],
    clock: Clock,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<GenerationStep, void> {
    const { maxBatchSize = engineDefaults.maxBatchSize } = this.options;
    const cache = this.#cacheFor(sequences, maxBatchSize);
    const maxContext = Math.max(...sequences.map(({ capacity }) => capacity));
    const waiting = [...sequences];
    let running: Sequence[] = [];
    while (waiting.length > 0 || running.length > 0) {
      const admitted: Sequence[] = [];
      while (
        waiting.length > 0 &&
        running.length + admitted.length < maxBatchSize &&
        blocksFor(waiting[0].capacity) <= cache.freeBlocks
      ) {
        const next = waiting.shift()!;
        next.blocks = cache.take(next.capacity);
        admitted.push(next);
      }
      if (admitted.length > 0) yield* this.#prefill(admitted, cache, maxContext, clock, signal);
      running = [...running, ...admitted].filter((sequence) => this.#stays(sequence, cache));
      if (running.length > 0) yield* this.#decode(running, cache, maxContext, clock, signal);
      running = running.filter((sequence) => this.#stays(sequence, cache));
    }
  }

  /** Gives the blocks of a finished sequence back. */
  #stays(sequence: Sequence, cache: KvCache): boolean {
    if (!sequence.finishReason) return true;
    cache.give(sequence.blocks);
    sequence.blocks = [];
    return false;
  }

  /** Runs the prompts chunk by chunk and yields the first token of each. */
  async *#prefill(
    sequences: readonly Sequence[],
    cache: KvCache,
    maxContext: number,
    clock: Clock,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<GenerationStep, void> {
    const waiting = [...sequences];
    while (waiting.length > 0) {
      signal?.throwIfAborted();
      const started = performance.now();
      const chunk = this.#nextChunk(waiting);
      const complete = chunk.filter(
        ({ sequence, slice }) => slice.start + slice.ids.length === sequence.request.ids.length,
      );
      const tokens = await this.#prefillPass(
        chunk,
        complete.map(({ sequence }) => sequence),
        cache,
        maxContext,
      );
      for (const { sequence, slice } of chunk) sequence.prefilled = slice.start + slice.ids.length;
      waiting.splice(0, complete.length);
      clock.prefillMs += performance.now() - started;
      for (const [i, { sequence }] of complete.entries()) yield sequence.accept(tokens[i]);
    }
  }

  /** The next prompt tokens in order, at most `prefillChunk`; sequences at the front are completed first. */
  #nextChunk(waiting: readonly Sequence[]): { sequence: Sequence; slice: Slice }[] {
    let room = this.options.prefillChunk ?? engineDefaults.prefillChunk[this.backend.device.type];
    const chunk: { sequence: Sequence; slice: Slice }[] = [];
    for (const sequence of waiting) {
      if (room === 0) break;
      const { ids } = sequence.request;
      const part = ids.slice(sequence.prefilled, sequence.prefilled + room);
      chunk.push({ sequence, slice: { ids: part, start: sequence.prefilled, blocks: sequence.blocks } });
      room -= part.length;
    }
    return chunk;
  }

  async #prefillPass(
    chunk: readonly { slice: Slice }[],
    complete: readonly Sequence[],
    cache: KvCache,
    maxContext: number,
  ): Promise<Int32Array> {
    const { backend, model, options } = this;
    const slices = chunk.map(({ slice }) => slice);
    model.prepare(
      backend,
      slices.map(({ start, ids }) => start + ids.length),
    );
    const sampled = backend.scope(() => {
      const batch = packBatch(backend, slices, blocksFor(maxContext));
      const hidden = model.forward({ batch, kv: cache.layers, dtype: options.dtype });
      if (complete.length === 0) return undefined;
      const rows = backend.tensor(lastRows(slices).slice(0, complete.length), [complete.length], 'i32');
      return sample(model.logits(selectRows(hidden, rows)), samplingState(backend, complete, maxContext));
    });
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

  /** Decodes until a sequence ends. The device is always one step ahead of the host. */
  async *#decode(
    sequences: readonly Sequence[],
    cache: KvCache,
    maxContext: number,
    clock: Clock,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<GenerationStep, void> {
    let mark = performance.now();
    const decoder = this.#decoders.start(sequences, cache, maxContext);
    let ahead: Promise<Int32Array> | undefined;
    try {
      let current: Promise<Int32Array> | undefined = decoder.step();
      while (current) {
        const last = sequences.every(({ newIds, request }) => newIds.length + 1 >= request.maxNewTokens);
        ahead = last || sequences.some(({ finishReason }) => finishReason) ? undefined : decoder.step();
        ahead?.catch(() => undefined);
        const tokens: Int32Array = await current;
        signal?.throwIfAborted();
        clock.decodeMs += performance.now() - mark;
        for (const [row, sequence] of sequences.entries())
          if (!sequence.finishReason) yield sequence.accept(tokens[row]);
        mark = performance.now();
        current = ahead;
        ahead = undefined;
      }
    } finally {
      await ahead?.catch(() => undefined);
    }
  }

  /** The cache, made larger when these sequences need more than it has. */
  #cacheFor(sequences: readonly Sequence[], maxBatchSize: number): KvCache {
    const needs = sequences.map(({ capacity }) => blocksFor(capacity)).sort((a, b) => b - a);
    const blocks = needs.slice(0, maxBatchSize).reduce((a, b) => a + b, 0);
    if (this.#cache && this.#cache.options.blocks >= blocks) return this.#cache;
    this.dispose();
    this.#cache = new KvCache(this.model, this.backend, { blocks, dtype: this.options.kvDtype ?? this.options.dtype });
    return this.#cache;
  }

  #check({ ids, maxNewTokens }: GenerationRequest): void {
    if (ids.length === 0)
      throw new ConfigError('generate', 'a prompt has no tokens', {
        fix: 'give at least one token, such as the beginning-of-sequence token',
      });
    const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= this.model.vocabSize);
    if (wrong !== undefined)
      throw new ConfigError('generate', `${wrong} is no token id of this model`, { vocabSize: this.model.vocabSize });
    if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1)
      throw new ConfigError('generate', 'maxNewTokens must be a positive integer', { got: maxNewTokens });
    const most = this.model.maxPositionEmbeddings;
    if (ids.length + maxNewTokens > most) {
      throw new ConfigError('generate', 'prompt and new tokens do not fit into the context', {
        prompt: ids.length,
        maxNewTokens,
        maxPositionEmbeddings: most,
        fix: `lower maxNewTokens to ${Math.max(most - ids.length, 0)} or shorten the prompt`,
      });
    }
  }

  #stats(sequences: readonly Sequence[], { prefillMs, decodeMs }: Clock): GenerationStats {
    const promptTokens = sequences.reduce((sum, { request }) => sum + request.ids.length, 0);
    const newTokens = sequences.reduce((sum, { newIds }) => sum + newIds.length, 0);
    const perSecond = (tokens: number, ms: number) => (ms > 0 ? (1000 * tokens) / ms : 0);
    return {
      promptTokens,
      newTokens,
      prefillMs,
      decodeMs,
      prefillTokensPerSecond: perSecond(promptTokens, prefillMs),
      decodeTokensPerSecond: perSecond(newTokens - sequences.length, decodeMs),
      peakBytes: this.backend.memory().peakBytes,
    };
  }
}

/** Adds the statistics to the last token of the last sequence that ends. */
async function* withStats(
  steps: AsyncGenerator<GenerationStep, void>,
  sequences: readonly Sequence[],
  stats: () => GenerationStats,
): AsyncGenerator<GenerationStep, void> {
  for await (const step of steps) {
    const done = step.finishReason && sequences.every(({ finishReason }) => finishReason);
    yield done ? { ...step, stats: stats() } : step;
  }
}
