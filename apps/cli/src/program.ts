import { Command } from 'commander';
import { addBench } from './commands/bench.js';
import { addDemo } from './commands/demo.js';
import { addDoctor } from './commands/doctor.js';
import { addEval } from './commands/eval.js';
import { addInspect } from './commands/inspect.js';
import { addPlan } from './commands/plan.js';
import { addQuantize } from './commands/quantize.js';
import { addRun } from './commands/run.js';
import { visibleText } from './escape.js';
import { version } from './version.js';

/** What a command gets beside its arguments. */
export interface Context {
  /** Aborted by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
}

/**
 * The `q` command with all of its subcommands. Errors are thrown, never exit.
 * @param json leave printing what is wrong with the arguments to the caller
 */
export function createProgram(signal: AbortSignal, { json = false } = {}): Command {
  const program = new Command('q')
    .description('Run, evaluate, quantize, inspect, place and benchmark Hugging Face models.')
    .version(version, '-V, --version')
    .helpOption('-h, --help', 'show help')
    .helpCommand('help [command]', 'show help of a command')
    .showSuggestionAfterError()
    .addHelpText(
      'after',
      '\nIn the repository: npm run q -- COMMAND; npm run -s q -- COMMAND prints only what the command does.',
    )
    .configureOutput({ writeErr: (text) => void (json || process.stderr.write(visibleText(text))) })
    .exitOverride();
  const context: Context = { signal };
  for (const add of [addRun, addEval, addQuantize, addInspect, addPlan, addBench, addDoctor, addDemo])
    add(program, context);
  for (const command of program.commands)
    command.exitOverride().helpOption('-h, --help', 'show help').option('--verbose', 'print stacks of errors');
  return program;
}
