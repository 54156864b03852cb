import { readFile } from 'node:fs/promises';
import { ConfigError, perplexityOf, type Tokenizer } from '@q/transformers';
import type { Command } from 'commander';
import { addModelFlags, defaultModel, modelArgument, numericsOption, type ModelFlags } from '../flags.js';
import { loadModel, quantizationName } from '../load.js';
import { count, printFields, printJson, rate } from '../output.js';
import { positiveInteger } from '../parse.js';
import type { Context } from '../program.js';
import { progressBar } from '../progress.js';

interface EvalFlags extends ModelFlags {
  text: string;
  window: number;
  windows: number;
}

export function addEval(program: Command, { signal }: Context): void {
  addModelFlags(
    program
      .command('eval')
      .description('Measure the perplexity of a model on a text.')
      .argument('[model]', modelArgument, defaultModel)
      .requiredOption('--text <file>', 'JSON list of documents (strings), or a .txt file')
      .option('--window <n>', 'tokens of a window; all but the first are scored', positiveInteger, 1024)
      .option('--windows <n>', 'most windows to score', positiveInteger, 200)
      .addOption(numericsOption()),
  ).action(async (id: string, flags: EvalFlags) => {
    if (flags.window < 2)
      throw new ConfigError('eval', 'a window of one token has nothing to score', { fix: 'use --window 2 or more' });
    const documents = await readDocuments(flags.text);
    const { model } = await loadModel(id, flags, signal);
    await using _ = model;
    if (!model.tokenizer)
      throw new ConfigError('eval', `${id} has no tokenizer`, { fix: 'use a model folder with tokenizer.json' });
    const windows = windowsOf(model.tokenizer, documents, flags);
    using bar = progressBar('scoring', 'windows');
    const started = performance.now();
    const means = await model.score(windows, { signal, onWindow: (index) => bar.update(index + 1, windows.length) });
    bar.stop();
    const secondsTaken = (performance.now() - started) / 1000;
    const tokens = windows.length * flags.window;
    const result = {
      model: id,
      device: model.backend.name,
      quantization: quantizationName(model),
      numerics: flags.numerics ?? 'fused',
      perplexity: perplexityOf(means),
      windows: windows.length,
      window: flags.window,
      tokens,
      scoredTokens: windows.length * (flags.window - 1),
      seconds: secondsTaken,
      tokensPerSecond: tokens / secondsTaken,
    };
    if (flags.json) return printJson(result);
    printFields([
      ['model', id],
      ['quantization', result.quantization],
      ['device', result.device],
      ['numerics', result.numerics],
      ['windows', `${windows.length} of ${flags.window} tokens`],
      ['perplexity', result.perplexity.toFixed(5)],
      ['tokens', count(tokens)],
      ['seconds', secondsTaken.toFixed(1)],
      ['tok/s', rate(result.tokensPerSecond)],
    ]);
  });
}

/** @throws ConfigError when the file is neither a JSON list of strings nor a .txt file. */
async function readDocuments(file: string): Promise<string[]> {
  const text = await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new ConfigError('eval', `cannot read ${file}`, {
      why: cause.message,
      fix: 'give --text a JSON list of strings or a .txt file',
      cause,
    });
  });
  if (file.endsWith('.txt')) return [text];
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ConfigError('eval', `${file} is not valid JSON`, {
      why: (cause as Error).message,
      fix: 'give a JSON list of strings, or a file whose name ends in .txt',
      cause,
    });
  }
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'string'))
    throw new ConfigError('eval', `${file} does not hold a list of strings`, {
      fix: 'write the documents as ["first text", "second text"]',
    });
  return value;
}

/**
 * Each document tokenized on its own, concatenated, cut into full windows. @throws ConfigError when there is less than
 * one.
 */
export function windowsOf(
  tokenizer: Tokenizer,
  documents: readonly string[],
  { window, windows }: { window: number; windows: number },
): number[][] {
  const ids: number[] = [];
  for (const document of documents) {
    if (ids.length >= window * windows) break;
    for (const id of tokenizer.encode(document)) ids.push(id);
  }
  const full = Math.min(windows, Math.floor(ids.length / window));
  if (full === 0)
    throw new ConfigError('eval', `the text has ${ids.length} tokens, less than one window`, {
      window,
      fix: 'use a longer text or a smaller --window',
    });
  return Array.from({ length: full }, (_, i) => ids.slice(i * window, (i + 1) * window));
}
