import { DisposedError } from '@q/config';
import type { GenerationRequest, GenerationStats, TokenDecoder } from './options.js';
import { Sequence } from './sequence.js';
import { StepChannel, type Readable } from './steps.js';

/** What one call of `Engine.submit` gave, on its way: its sequences, its reader, and whether it still goes on. */
export class Job implements Readable {
  readonly channel: StepChannel;
  readonly sequences: readonly Sequence[];
  readonly clock = { prefillMs: 0, decodeMs: 0 };
  readonly #stop = new AbortController();
  #stopped: { readonly error?: unknown } | undefined;
  #release: () => void = () => undefined;
  readonly #released = new Promise<void>((resolve) => (this.#release = resolve));

  constructor(
    requests: readonly GenerationRequest[],
    decoder: TokenDecoder | undefined,
    /** Is told when the job is stopped before its reader has everything, and when he has. */
    private readonly listener: { readonly onStop: (job: Job) => void; readonly onDrained: (job: Job) => void },
  ) {
    this.channel = new StepChannel(() => listener.onDrained(this));
    this.sequences = requests.map((request, index) => new Sequence(index, request, decoder));
  }

  /** Stops the job, with an error for its reader or without. The engine calls {@link close} once its memory is free. */
  stop(error?: unknown): void {
    if (this.#stopped) return;
    this.#stopped = { error };
    this.channel.discard();
    this.#stop.abort();
    this.listener.onStop(this);
  }

  get isStopped(): boolean {
    return this.#stopped !== undefined;
  }

  /** Aborts when the job is stopped: what is queued for it is called off. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** Ends the work on a stopped job; {@link close} says to the reader why. */
  throwIfStopped(): void {
    if (this.#stopped) throw new DisposedError('generate', 'this generation was stopped');
  }

  async leave(): Promise<void> {
    this.stop();
    await this.#released;
  }

  /** Nothing is computed for it any more and its memory is free. @param error what went wrong */
  close(error?: unknown): void {
    if (this.#stopped) this.channel.cut(this.#stopped.error);
    else this.channel.end(error);
    this.#release();
  }

  /** Gives a token to its sequence and the step to the reader. @throws NumericsError */
  accept(sequence: Sequence, tokenId: number, peakBytes: () => number): void {
    const step = sequence.accept(tokenId);
    const isLast = step.finishReason && this.sequences.every(({ finishReason }) => finishReason);
    this.channel.push(isLast ? { ...step, stats: this.#stats(peakBytes()) } : step);
  }

  #stats(peakBytes: number): GenerationStats {
    const { prefillMs, decodeMs } = this.clock;
    const promptTokens = this.sequences.reduce(
      (sum, { request, sourceLength }) => sum + request.ids.length + sourceLength,
      0,
    );
    const newTokens = this.sequences.reduce((sum, { newIds }) => sum + newIds.length, 0);
    const perSecond = (tokens: number, ms: number) => (ms > 0 ? (1000 * tokens) / ms : 0);
    return {
      promptTokens,
      newTokens,
      prefillMs,
      decodeMs,
      prefillTokensPerSecond: perSecond(promptTokens, prefillMs),
      decodeTokensPerSecond: perSecond(newTokens - this.sequences.length, decodeMs),
      peakBytes,
    };
  }
}
