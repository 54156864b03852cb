import { QError } from '@q/transformers';
import pc from 'picocolors';

/**
 * Prints an error to stderr: one clear message for what Q reports, the stack too with `--verbose` or for a fault of the
 * program.
 */
export function reportError(error: unknown, verbose: boolean): void {
  const colors = pc.createColors(process.stderr.isTTY && pc.isColorSupported);
  if (error instanceof QError && !verbose) {
    console.error(`${colors.red(`${error.name}:`)} ${error.message}`);
    return;
  }
  console.error(error instanceof Error ? (error.stack ?? error.message) : String(error));
  for (let cause = (error as { cause?: unknown })?.cause; cause instanceof Error; cause = cause.cause)
    console.error(`caused by ${cause.stack ?? cause.message}`);
}
