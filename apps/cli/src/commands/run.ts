import { addAbortSignal } from 'node:stream';
import { text as readAll } from 'node:stream/consumers';
import { ConfigError, type CausalModel, type GenerateOptions, type GenerationStats } from '@q/transformers';
import type { Command } from 'commander';
import { addModelFlags, defaultModel, modelArgument, numericsOption, type ModelFlags } from '../flags.js';
import { loadModel, quantizationName } from '../load.js';
import { count, note, paint, print, printJson, rate, seconds, writeModelText } from '../output.js';
import { collect, numberFromZero, positiveInteger, positiveNumber, probability, wholeNumber } from '../parse.js';
import type { Context } from '../program.js';

interface RunFlags extends ModelFlags {
  prompt?: string;
  chat?: boolean;
  maxNewTokens: number;
  doSample?: boolean;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  stop?: string[];
  seed?: number;
}

export function addRun(program: Command, { signal }: Context): void {
  addModelFlags(
    program
      .command('run')
      .description('Continue a prompt and stream the text.')
      .argument('[model]', modelArgument, defaultModel)
      .option('-p, --prompt <text>', 'text to continue (default: standard input)')
      .option('--chat', 'put the text into the chat template of the model, as the user')
      .option('-n, --max-new-tokens <n>', 'most tokens to add', positiveInteger, 128)
      .option('--do-sample', 'draw tokens at random instead of taking the likeliest')
      .option('--temperature <t>', 'divides the logits, 0 for the likeliest token; implies --do-sample', numberFromZero)
      .option('--top-k <k>', 'keep the k likeliest tokens, 0 for all; implies --do-sample', wholeNumber)
      .option('--top-p <p>', 'keep the likeliest tokens up to this probability; implies --do-sample', probability)
      .option('--min-p <p>', 'drop tokens less likely than p times the likeliest; implies --do-sample', probability)
      .option('--repetition-penalty <x>', 'makes tokens of the text so far less likely', positiveNumber)
      .option('--stop <text>', 'end where this text appears; may be repeated', collect)
      .option('--seed <n>', 'seed of sampling (default: random)', wholeNumber)
      .addOption(numericsOption()),
  ).action(async (id: string, flags: RunFlags) => {
    const prompt = flags.prompt ?? (await promptFromStdin(signal));
    const { model, loadMs } = await loadModel(id, flags, signal);
    await using _ = model;
    await run(id, model, prompt, flags, loadMs, signal);
  });
}

async function promptFromStdin(signal: AbortSignal): Promise<string> {
  if (process.stdin.isTTY)
    throw new ConfigError('run', 'there is no prompt', { fix: 'give --prompt "text", or pipe the text in' });
  // A pipe that stays open must not keep the program from ending.
  return readAll(addAbortSignal(signal, process.stdin));
}

/** Options of `generate` for the flags; what is not given stays as the model's generation_config.json says. */
function generateOptions({
  maxNewTokens,
  doSample,
  temperature,
  topK,
  topP,
  minP,
  repetitionPenalty,
  stop,
  seed,
}: RunFlags): GenerateOptions {
  return {
    maxNewTokens,
    ...(doSample && { doSample: true }), // which sampling options imply in generate()
    ...(temperature !== undefined && { temperature }),
    ...(topK !== undefined && { topK }),
    ...(topP !== undefined && { topP }),
    ...(minP !== undefined && { minP }),
    ...(repetitionPenalty !== undefined && { repetitionPenalty }),
    ...(stop && { stopStrings: stop }),
    ...(seed !== undefined && { seed }),
  };
}

const inputOf = (prompt: string, chat = false) =>
  chat ? { messages: [{ role: 'user', content: prompt }] } : { prompt };

async function run(
  id: string,
  model: CausalModel,
  prompt: string,
  flags: RunFlags,
  loadMs: number,
  signal: AbortSignal,
): Promise<void> {
  const generation = model.generate({ ...inputOf(prompt, flags.chat), ...generateOptions(flags), signal });
  if (flags.json) {
    const { text, newTokens, finishReasons, stats } = await generation;
    printJson({
      model: id,
      device: model.backend.name,
      quantization: quantizationName(model),
      prompt,
      text,
      newTokens: newTokens[0],
      finishReason: finishReasons[0],
      loadMs,
      stats,
    });
    return;
  }
  if (process.stdout.isTTY && !flags.chat) writeModelText(paint.dim(prompt));
  let stats: GenerationStats | undefined;
  for await (const step of generation) {
    writeModelText(step.text);
    stats = step.stats ?? stats;
  }
  print();
  note(paint.dim(statsLine(stats!, loadMs)));
}

/** `load 0.10 s, prompt 12 tokens at 800 tok/s, 64 new tokens at 120 tok/s`. */
export const statsLine = (stats: GenerationStats, loadMs: number): string =>
  `load ${seconds(loadMs)}, prompt ${count(stats.promptTokens)} tokens at ${rate(stats.prefillTokensPerSecond)} tok/s, ${count(stats.newTokens)} new tokens at ${rate(stats.decodeTokensPerSecond)} tok/s`;
