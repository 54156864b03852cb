import { HubFailure } from './failure.js';
import type { HubLimits } from '../limits.js';
import { pause } from './watch.js';

/** Counts the retries of one piece of work, and pauses before each. */
export class Patience {
  #retries = 0;

  constructor(
    readonly limits: HubLimits,
    readonly options: {
      readonly signal?: AbortSignal;
      /** Most retries. Default: the limit. */
      readonly maxRetries?: number;
      /** Longest pause. Default: the limits. */
      readonly maxPauseMs?: number;
      /** In the middle of a download any loss of the hub is worth another try. */
      readonly anyLoss?: boolean;
    } = {},
  ) {}

  /** Pauses before the next try, or throws the error if there is to be none. */
  async after(error: unknown): Promise<void> {
    const { signal, maxRetries = this.limits.maxRetries, maxPauseMs = Infinity, anyLoss = false } = this.options;
    if (!(error instanceof HubFailure)) throw error;
    if (!error.transient && !(anyLoss && error.kind === 'unreachable')) throw error;
    if (this.#retries >= maxRetries) throw error;
    const { backoffMs, maxBackoffMs, maxRetryAfterMs } = this.limits;
    const asked = error.retryAfterMs ?? 0;
    if (asked > Math.min(maxRetryAfterMs, maxPauseMs)) throw error;
    const own = Math.min(backoffMs * 2 ** this.#retries, maxBackoffMs, maxPauseMs);
    this.#retries++;
    // Up to a quarter more, so that many processes that were sent away do not come back at once.
    await pause(Math.max(asked, own * (1 + Math.random() / 4)), signal);
  }

  /** Something came: the next failure is a first one again. */
  forgive(): void {
    this.#retries = 0;
  }
}
