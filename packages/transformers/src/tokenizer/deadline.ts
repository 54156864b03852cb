// Stops work on a text that takes too long. Node interrupts a script that was started with a time limit, and what it
// called with it, regular expressions included; nothing else can do that on the calling thread.
import { createContext, Script, type Context } from 'node:vm';
import { ConfigError } from '@q/config';
import type { TokenizerLimits } from '../limits.js';

/** Milliseconds that a timer of Node.js holds. */
export const longestTimer = 2 ** 31 - 1;

let watched: { readonly context: Context; readonly script: Script } | undefined;

/**
 * Runs `work` on this thread, at most the milliseconds that a text of `length` characters may take.
 * @throws ConfigError when it takes longer.
 */
export function withDeadline<T>(op: string, length: number, limits: TokenizerLimits, work: () => T): T {
  const timeout = Math.ceil(limits.textMilliseconds + (length / 1e6) * limits.textMillisecondsPerMillion);
  if (timeout > longestTimer) return work();
  watched ??= { context: createContext({ work: undefined }), script: new Script('work()') };
  const { context, script } = watched;
  let outcome: { readonly value: T } | { readonly error: unknown } | undefined;
  const outer: unknown = context.work;
  context.work = () => {
    try {
      outcome = { value: work() };
    } catch (error) {
      outcome = { error };
    }
  };
  try {
    script.runInContext(context, { timeout });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw cause;
    throw new ConfigError(op, `a text of ${length} characters took longer than ${timeout} ms`, {
      why: "the tokenizer's regular expressions or vocabulary make the work grow too fast",
      fix: 'check where tokenizer.json comes from, give shorter texts, or raise textMilliseconds of tokenizerLimits',
      cause,
    });
  } finally {
    context.work = outer;
  }
  if (outcome && 'error' in outcome) throw outcome.error;
  return outcome!.value;
}
