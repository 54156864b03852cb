import { HubFailure } from './failure.js';

const longestTimer = 2 ** 31 - 1;

function timer(ms: number, run: () => void): NodeJS.Timeout | undefined {
  return ms === Infinity ? undefined : setTimeout(run, Math.min(ms, longestTimer));
}

export interface WatchTimes {
  /** Longest time without progress. */
  readonly idleMs: number;
  /** Bytes that count as progress. */
  readonly minBytes: number;
  /** Longest time in all. Default: none. */
  readonly totalMs?: number;
}

/**
 * Ends one exchange with a server: by the caller's signal, when nothing comes for too long, or (`dispose`) when it is
 * done. Waits are raced, because an injected `fetch` may not look at its signal.
 */
export class Watch implements Disposable {
  readonly #controller = new AbortController();
  readonly #times: WatchTimes;
  readonly #caller: AbortSignal | undefined;
  readonly #stop = () => this.#controller.abort(this.#caller?.reason);
  readonly #total: NodeJS.Timeout | undefined;
  #idle: NodeJS.Timeout | undefined;
  #bytes = 0;

  constructor(times: WatchTimes, signal?: AbortSignal) {
    this.#times = times;
    this.#caller = signal;
    signal?.throwIfAborted();
    signal?.addEventListener('abort', this.#stop, { once: true });
    const { totalMs = Infinity } = times;
    this.#total = timer(totalMs, () => this.#expire(`not done after ${totalMs / 1000} s`));
    this.touch();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Restarts the clock. */
  touch(): void {
    clearTimeout(this.#idle);
    const { idleMs } = this.#times;
    this.#idle = timer(idleMs, () => this.#expire(`nothing came for ${idleMs / 1000} s`));
  }

  /** Counts bytes, which restart the clock once they are enough. */
  count(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes < this.#times.minBytes) return;
    this.#bytes = 0;
    this.touch();
  }

  /** The result of a wait, or what ended it first. */
  async race<T>(waiting: Promise<T>): Promise<T> {
    const { signal } = this;
    waiting.catch(() => undefined); // it may fail after nobody waits for it any more
    signal.throwIfAborted();
    let stopped = () => undefined as void;
    const ended = new Promise<never>((_, reject) => {
      stopped = () => reject(signal.reason as Error);
      signal.addEventListener('abort', stopped, { once: true });
    });
    try {
      return await Promise.race([waiting, ended]);
    } catch (error) {
      // fetch rejects with an error of its own around the reason
      throw signal.aborted ? signal.reason : error;
    } finally {
      signal.removeEventListener('abort', stopped);
    }
  }

  /** Stops the clocks and closes the connection if the answer was not read to its end. */
  [Symbol.dispose](): void {
    clearTimeout(this.#idle);
    clearTimeout(this.#total);
    this.#caller?.removeEventListener('abort', this.#stop);
    this.#controller.abort(new HubFailure('unreachable', 'the exchange is over'));
  }

  #expire(what: string): void {
    this.#controller.abort(new HubFailure('unreachable', `the hub does not answer: ${what}`));
  }
}

/** Resolves after a time; rejects with the signal's reason when aborted. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  let stopped = () => undefined as void;
  let clock: NodeJS.Timeout | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      stopped = () => reject(signal?.reason as Error);
      clock = timer(ms, resolve);
      signal?.addEventListener('abort', stopped, { once: true });
    });
  } finally {
    clearTimeout(clock);
    signal?.removeEventListener('abort', stopped);
  }
}
