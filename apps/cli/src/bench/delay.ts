import { monitorEventLoopDelay } from 'node:perf_hooks';

/** How late the event loop was while something ran, in milliseconds, of a 1 ms timer. */
export interface LoopDelay {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** Runs `work` and watches the event loop meanwhile. */
export async function withLoopDelay<T>(work: () => Promise<T>): Promise<{ result: T; delay: LoopDelay }> {
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  histogram.enable();
  try {
    const result = await work();
    // The last interval counts too, even if nothing else gave the loop a turn.
    await new Promise((resolve) => setTimeout(resolve, 5));
    const ms = (nanoseconds: number) => Math.round(nanoseconds / 1e4) / 100;
    return {
      result,
      delay: { p50Ms: ms(histogram.percentile(50)), p99Ms: ms(histogram.percentile(99)), maxMs: ms(histogram.max) },
    };
  } finally {
    histogram.disable();
  }
}
