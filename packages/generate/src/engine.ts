import { assertInteger, DisposedError } from '@q/config';
import type { CausalLM } from '@q/models';
import type { Backend, FloatDType } from '@q/tensor';
import { Job } from './job.js';
import type { GenerationRequest, GenerationStep, TokenDecoder } from './options.js';
import { checkRequests } from './requests.js';
import { Runner } from './runner.js';
import { StepReader } from './steps.js';

export interface EngineOptions {
  /** Dtype of activations. */
  readonly dtype: FloatDType;
  /** Dtype of cached keys and values. Default: the activation dtype. */
  readonly kvDtype?: FloatDType;
  /** Most sequences that decode together. Default 32. */
  readonly maxBatchSize?: number;
  /**
   * Most prompt tokens of one forward pass. Default 512 on a CPU, so that an abort takes effect soon, and 4096 on a
   * GPU, to fill it. Infinity runs prompts whole.
   */
  readonly prefillChunk?: number;
  /** Turns ids into text. Default none: texts of steps are empty. */
  readonly tokenDecoder?: TokenDecoder;
}

export const engineDefaults = { maxBatchSize: 32, prefillChunk: { cpu: 512, cuda: 4096 } } as const;

/**
 * Runs requests on one model, for as long as that lives; {@link submit} is the only way in. What is submitted is served
 * in the order in which it was begun; a sequence's tokens do not depend on its neighbours. A reader that pauses or goes
 * away holds no other one back.
 */
export class Engine {
  readonly #runner: Runner;
  /** The first job is being computed, the others wait. */
  readonly #queue: Job[] = [];
  /** Jobs whose reader does not have everything yet. */
  readonly #unread = new Set<Job>();
  readonly #forgotten = new FinalizationRegistry<Job>((job) => job.stop());
  #work: Promise<void> | undefined;
  #disposed = false;

  /** @throws ConfigError for options that are no positive integers */
  constructor(
    readonly model: CausalLM,
    readonly backend: Backend,
    readonly options: EngineOptions,
  ) {
    const { dtype, kvDtype = dtype, maxBatchSize = engineDefaults.maxBatchSize } = options;
    const { prefillChunk = engineDefaults.prefillChunk[backend.device.type] } = options;
    assertInteger('engine', 'maxBatchSize', maxBatchSize);
    if (prefillChunk !== Infinity) assertInteger('engine', 'prefillChunk', prefillChunk);
    this.#runner = new Runner(model, backend, { dtype, kvDtype, maxBatchSize, prefillChunk });
  }

  /**
   * Generates for a request, or for several that decode together, and yields every token as it becomes known. It begins
   * with the first call of `next()`. Leaving the loop early frees the sequences, as does forgetting the iterator.
   * @returns an iterator that throws ConfigError for an empty prompt or a context that the model does not have,
   *   NumericsError when logits are not finite, OutOfMemoryError, DisposedError, and the signal's reason on abort
   */
  submit(
    request: GenerationRequest | readonly GenerationRequest[],
    { signal }: { signal?: AbortSignal } = {},
  ): AsyncGenerator<GenerationStep, void, void> {
    const requests = [request].flat();
    return new StepReader((reader) => this.#begin(reader, requests, signal));
  }

  /** Ends what is running or waiting with DisposedError and frees the cache. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    const error = new DisposedError('generate', 'the model was disposed');
    for (const job of [...this.#unread]) job.stop(error);
    await this.#work;
    this.#runner.dispose();
  }

  #begin(reader: StepReader, requests: readonly GenerationRequest[], signal: AbortSignal | undefined): Job {
    if (this.#disposed) throw new DisposedError('generate', 'the model was disposed');
    checkRequests(requests, this.model);
    signal?.throwIfAborted();
    const onAbort = () => job.stop(signal!.reason);
    const onDrained = () => {
      signal?.removeEventListener('abort', onAbort);
      this.#forgotten.unregister(job);
      this.#unread.delete(job);
    };
    const job = new Job(requests, this.options.tokenDecoder, { onStop: () => this.#stop(job), onDrained });
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#forgotten.register(reader, job, job);
    this.#unread.add(job);
    this.#queue.push(job);
    if (this.#queue.length > 1) this.#queue[0].channel.hurry();
    this.#work ??= this.#serve();
    return job;
  }

  /** Computes job after job; never rejects. */
  async #serve(): Promise<void> {
    for (let job = this.#queue[0]; job; job = this.#queue[0]) {
      if (this.#queue.length > 1) job.channel.hurry();
      const error = await this.#runner.run(job).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      this.#queue.shift();
      job.close(error);
    }
    this.#work = undefined;
  }

  /** A job that is being computed ends by itself, within a step; others end here. */
  #stop(job: Job): void {
    const place = this.#queue.indexOf(job);
    if (place === 0) return;
    if (place > 0) this.#queue.splice(place, 1);
    job.close();
  }
}
