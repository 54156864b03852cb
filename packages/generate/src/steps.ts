import type { GenerationStep } from './options.js';

type Result = IteratorResult<GenerationStep, void>;

interface Waiting {
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}

/** Unread steps at which the engine waits for the reader, unless others wait for the engine. */
export const stepsAhead = 256;

const finished: Result = { done: true, value: undefined };

/**
 * Steps on their way from the engine to one reader. The engine never waits for a reader when somebody waits behind him:
 * a reader that pauses, or forgot the generation, holds nobody back.
 */
export class StepChannel {
  #steps: GenerationStep[] = [];
  #waiting: Waiting[] = [];
  #end: { readonly error?: unknown } | undefined;
  #wake: (() => void) | undefined;
  #hurried = false;
  #discards = false;

  /** @param onDrained is called once, when the reader has all that there will be */
  constructor(private readonly onDrained: () => void) {}

  push(step: GenerationStep): void {
    if (this.#discards) return;
    const reader = this.#waiting.shift();
    if (reader) reader.resolve({ done: false, value: step });
    else this.#steps.push(step);
  }

  /** No more steps; the reader gets those that are there, then the error if there is one. */
  end(error?: unknown): void {
    if (this.#end) return;
    this.#end = { error };
    if (this.#steps.length === 0) this.onDrained();
    this.#settle();
  }

  /** The reader gets no more steps, not even those that are there; {@link cut} says when it ends. */
  discard(): void {
    if (this.#end && this.#steps.length === 0) return;
    [this.#steps, this.#end, this.#discards] = [[], undefined, true];
    this.hurry();
  }

  /** The end of what {@link discard} broke off. An error is what the reader gets. */
  cut(error?: unknown): void {
    if (!this.#discards || this.#end) return;
    this.#end = { error };
    this.onDrained();
    this.#settle();
  }

  next(): Promise<Result> {
    const step = this.#steps.shift();
    if (step) {
      if (this.#steps.length < stepsAhead) this.#wake?.();
      if (this.#end && this.#steps.length === 0) this.onDrained();
      return Promise.resolve({ done: false, value: step });
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      if (this.#end) this.#settle();
    });
  }

  /** From now on the engine does not wait for this reader: somebody waits behind him. */
  hurry(): void {
    this.#hurried = true;
    this.#wake?.();
  }

  /** A promise while the reader is far behind; undefined otherwise. */
  room(): Promise<void> | undefined {
    if (this.#hurried || this.#end || this.#steps.length < stepsAhead) return undefined;
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined;
        resolve();
      };
    });
  }

  /** Answers those who wait beyond the end: the first with the error. */
  #settle(): void {
    for (const { resolve, reject } of this.#waiting.splice(0)) {
      const error = this.#end!.error;
      this.#end = {};
      if (error === undefined) resolve(finished);
      else reject(error);
    }
  }
}

/** What a reader needs of a job of the engine. */
export interface Readable {
  readonly channel: StepChannel;
  /** Stops the job and resolves when its memory is free. */
  leave(): Promise<void>;
}

/**
 * The steps of one generation, which begins with the first call of {@link next}. Leaving early ({@link return}, `break`
 * out of a `for await` loop) stops it at once, also while a step is awaited.
 */
export class StepReader implements AsyncGenerator<GenerationStep, void, void> {
  #job: Readable | undefined;
  #closed = false;

  /** @param begin throws what the first step rejects with */
  constructor(private readonly begin: (reader: StepReader) => Readable) {}

  async next(): Promise<Result> {
    if (this.#closed) return finished;
    this.#job ??= this.#begun();
    return this.#job.channel.next();
  }

  async return(): Promise<Result> {
    await this.#leave();
    return finished;
  }

  async throw(error: unknown): Promise<Result> {
    await this.#leave();
    throw error;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#leave();
  }

  #begun(): Readable {
    try {
      return this.begin(this);
    } catch (error) {
      this.#closed = true;
      throw error;
    }
  }

  async #leave(): Promise<void> {
    this.#closed = true;
    await this.#job?.leave();
  }
}
