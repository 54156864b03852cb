import { BitsAndBytesConfig, ConfigError, numericsModes, type LoadModelOptions, type Numerics } from '@q/transformers';
import { Option, type Command } from 'commander';
import { collect, positiveInteger } from './parse.js';

/** Values of the flags that every command which loads a model shares. */
export interface ModelFlags {
  loadIn4bit?: boolean;
  loadIn8bit?: boolean;
  quantType?: 'nf4' | 'fp4';
  doubleQuant?: boolean;
  computeDtype?: 'float32' | 'float16' | 'bfloat16';
  dtype?: string;
  /** Of commands that compute: see {@link numericsOption}. */
  numerics?: Numerics;
  device: string;
  threads?: number;
  revision?: string;
  localFilesOnly?: boolean;
  ignoreConfigKey?: string[];
  json?: boolean;
}

export const defaultModel = '@q/nano';
export const modelArgument = 'folder, Hugging Face id, or @q/nano';

/** Adds the flags of quantization, placement and output. */
export function addModelFlags(command: Command): Command {
  return addOutputFlags(
    addHubFlags(
      command
        .option('--load-in-4bit', 'quantize linear layers to 4 bits while loading')
        .option('--load-in-8bit', 'quantize linear layers to LLM.int8 while loading')
        .addOption(
          new Option('--quant-type <type>', 'code of 4-bit weights; needs --load-in-4bit (default: nf4)').choices([
            'nf4',
            'fp4',
          ]),
        )
        .option('--double-quant', 'quantize the 4-bit scales too; needs --load-in-4bit')
        .addOption(
          new Option(
            '--compute-dtype <dtype>',
            '4-bit products in this dtype; needs --load-in-4bit (default: float32)',
          ).choices(['float32', 'float16', 'bfloat16']),
        )
        .addOption(
          new Option('--dtype <dtype>', 'dtype of dense weights (default: what the checkpoint has)').choices([
            'auto',
            'float32',
            'float16',
            'bfloat16',
          ]),
        )
        .addOption(ignoreConfigKeyOption())
        .option('--device <device>', 'where the model goes: cpu, cuda, cuda:0', 'cpu')
        .option('--threads <n>', 'threads of the CPU device (default: physical cores)', positiveInteger),
    ),
  );
}

/** The flag for how a command that runs the model rounds; `quantize`, which computes nothing with it, has none. */
export const numericsOption = (): Option =>
  new Option(
    '--numerics <mode>',
    'fused operators, or eager: the steps and roundings of Python, for comparison (default: fused)',
  ).choices(numericsModes);

/** Adds the flags that say where a model's files come from. */
export const addHubFlags = (command: Command): Command =>
  command
    .option('--revision <name>', 'branch, tag or commit of a Hugging Face model')
    .option('--local-files-only', 'use no network');

/** The flag of commands that read a model's config.json. */
export const ignoreConfigKeyOption = (): Option =>
  new Option(
    '--ignore-config-key <key>',
    'read config.json without this key, such as rope_scaling.alpha; may be repeated',
  ).argParser(collect);

export const addOutputFlags = (command: Command): Command => command.option('--json', 'print the result as JSON');

/**
 * The quantization that the flags ask for. nf4 is the default of the flags, which nobody asked for: a checkpoint that
 * is fp4 already is no contradiction to it.
 * @throws ConfigError for flags that contradict each other.
 */
export function quantizationOf(flags: ModelFlags): BitsAndBytesConfig | undefined {
  const { loadIn4bit = false, loadIn8bit = false, quantType, doubleQuant, computeDtype } = flags;
  if (loadIn4bit && loadIn8bit)
    throw new ConfigError('q', '--load-in-4bit and --load-in-8bit are both given', { fix: 'give one of them' });
  if (!loadIn4bit) refuse4bitFlags(flags);
  if (loadIn8bit) return new BitsAndBytesConfig({ loadIn8bit });
  if (!loadIn4bit) return undefined;
  return new BitsAndBytesConfig({
    loadIn4bit,
    ...(quantType !== undefined && { bnb4bitQuantType: quantType }),
    ...(doubleQuant !== undefined && { bnb4bitUseDoubleQuant: doubleQuant }),
    ...(computeDtype !== undefined && { bnb4bitComputeDtype: computeDtype }),
  }).withDefaults({ bnb4bitQuantType: 'nf4' });
}

function refuse4bitFlags({ quantType, doubleQuant, computeDtype }: ModelFlags): void {
  const given = Object.entries({
    '--quant-type': quantType,
    '--double-quant': doubleQuant,
    '--compute-dtype': computeDtype,
  }).filter(([, value]) => value !== undefined);
  if (given.length > 0)
    throw new ConfigError('q', `${given.map(([name]) => name).join(', ')} without --load-in-4bit`, {
      fix: 'add --load-in-4bit, or leave it out',
    });
}

/** Options of `fromPretrained` for the flags. */
export function loadOptions(flags: ModelFlags, signal: AbortSignal): LoadModelOptions {
  return {
    quantizationConfig: quantizationOf(flags),
    torchDtype: flags.dtype,
    numerics: flags.numerics,
    deviceMap: flags.device,
    threads: flags.threads,
    revision: flags.revision,
    localFilesOnly: flags.localFilesOnly,
    ignoreConfigKeys: flags.ignoreConfigKey,
    signal,
  };
}
