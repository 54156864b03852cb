#!/usr/bin/env node
import { CommanderError } from 'commander';
import { reportError } from './errors.js';
import { createProgram } from './program.js';

// A reader that closed the pipe (`q run | head`) ends the program without a fuss.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

const abort = new AbortController();
const interrupt = () => {
  if (abort.signal.aborted) process.exit(130);
  abort.abort(new DOMException('interrupted', 'AbortError'));
};
process.on('SIGINT', interrupt);
process.on('SIGTERM', interrupt);

try {
  await createProgram(abort.signal).parseAsync(process.argv);
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode;
  else if (abort.signal.aborted) process.exitCode = 130;
  else {
    reportError(error, process.argv.includes('--verbose'));
    process.exitCode = 1;
  }
}
