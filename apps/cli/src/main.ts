#!/usr/bin/env node
// Signals are watched before anything else is loaded, so that there is no moment at which they end the process
// without an exit code.
import { constants } from 'node:os';

// A reader that closed the pipe (`q run | head`) ends the program without a fuss.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

/** How long a command may take to give back what it holds; files that it was writing are not in place yet. */
const patienceMs = 3000;

const abort = new AbortController();
let interrupted: number | undefined;
function interrupt(name: 'SIGINT' | 'SIGTERM'): void {
  if (interrupted !== undefined) process.exit(interrupted);
  interrupted = 128 + constants.signals[name];
  abort.abort(new DOMException('interrupted', 'AbortError'));
  setTimeout(() => process.exit(interrupted), patienceMs).unref();
}
process.on('SIGINT', interrupt);
process.on('SIGTERM', interrupt);

const end = process.argv.indexOf('--');
const options = process.argv.slice(2, end < 0 ? undefined : end);
const [json, verbose] = ['--json', '--verbose'].map((name) => options.includes(name));

try {
  const { createProgram } = await import('./program.js');
  abort.signal.throwIfAborted();
  await createProgram(abort.signal, { json }).parseAsync(process.argv);
} catch (error) {
  // Help and the version come as errors with exit code 0.
  process.exitCode = (error as { exitCode?: number }).exitCode ?? 1;
  if (interrupted === undefined && process.exitCode !== 0) {
    const { reportError } = await import('./errors.js');
    reportError(error, { verbose, json });
  }
}
if (interrupted !== undefined) process.exitCode = interrupted;
