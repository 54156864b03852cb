import { readFile, stat } from 'node:fs/promises';
import {
  ConfigError,
  describeMessage,
  parseJsonText,
  parseModelConfig,
  PlacementError,
  planFor,
  plannedQuantization,
  planPlacement,
  PlanRefusedError,
  renderBars,
  type BitsAndBytesConfig,
  type Budgets,
  type ModelTree,
  type Plan,
  type PlanOptions,
} from '@q/transformers';
import { Option, type Command } from 'commander';
import { addHubFlags, addOutputFlags, ignoreConfigKeyOption, quantizationOf, type ModelFlags } from '../flags.js';
import { visible } from '../escape.js';
import { noteText, print, printJson, printText, warn } from '../output.js';
import { positiveInteger } from '../parse.js';
import type { Context } from '../program.js';

interface PlanFlags extends Pick<
  ModelFlags,
  'loadIn4bit' | 'loadIn8bit' | 'dtype' | 'revision' | 'localFilesOnly' | 'ignoreConfigKey' | 'json'
> {
  deviceMap: string;
  maxMemory?: string;
  context?: number;
  batch?: number;
  kvDtype?: 'f32' | 'f16' | 'bf16';
  wiring: 'q' | 'accelerate' | 'transformers-5';
  offload?: boolean;
  skipModules?: string;
  explain?: boolean;
}

export function addPlan(program: Command, { signal }: Context): void {
  addOutputFlags(
    addHubFlags(
      program
        .command('plan')
        .description('Show where the modules of a model would go, without loading it.')
        .argument('<model>', 'folder or Hugging Face id, a config.json, or a JSON file with a module tree')
        .option('--device-map <map>', 'auto, balanced, balanced_low_0, sequential, a device, or a JSON map', 'auto')
        .option(
          '--max-memory <budgets>',
          'bytes per device, such as 0=10GiB,1=10GiB,cpu=30GiB (default: what is free here)',
        )
        .option('--load-in-4bit', 'plan for 4-bit linear layers')
        .option('--load-in-8bit', 'plan for LLM.int8 linear layers')
        .option(
          '--skip-modules <names>',
          'modules that stay unquantized, separated by commas; needs --load-in-4bit or --load-in-8bit',
        )
        .addOption(
          new Option('--dtype <dtype>', 'dtype of dense weights (default: what config.json says)').choices([
            'float32',
            'float16',
            'bfloat16',
          ]),
        )
        .addOption(ignoreConfigKeyOption())
        .option('--context <tokens>', 'keep room for the cache of this many tokens', positiveInteger)
        .option('--batch <n>', 'sequences of that length; needs --context', positiveInteger)
        .addOption(
          new Option(
            '--kv-dtype <dtype>',
            'dtype of the cache (default: what each device computes in: f32 on a CPU)',
          ).choices(['f32', 'f16', 'bf16']),
        )
        .addOption(
          new Option('--wiring <rules>', 'whose planner to follow')
            .choices(['q', 'accelerate', 'transformers-5'])
            .default('q'),
        )
        .option('--offload', 'let quantized modules go to cpu and disk')
        .option('--explain', 'say for every module why it is where it is'),
    ),
  ).action(async (model: string, flags: PlanFlags) => {
    if (flags.batch !== undefined && flags.context === undefined)
      throw new ConfigError('plan', '--batch without --context', { fix: 'add --context' });
    try {
      show(await planOf(model, flags, signal), flags);
    } catch (error) {
      if (error instanceof PlanRefusedError && !flags.json) noteText(renderBars(error.plan));
      throw inFlags(error);
    }
  });
}

/**
 * The planner's refusal to offload quantized modules, with the flags of this command instead of the options of the
 * function.
 */
function inFlags(error: unknown): unknown {
  if (!(error instanceof PlacementError) || error.fields.rule !== 'quantized_offload') return error;
  return new PlacementError('plan', 'quantized modules would go to the cpu or the disk', {
    ...error.fields,
    why: 'bitsandbytes runs on GPUs, so transformers refuses such a map',
    fix: 'give the GPUs more memory with --max-memory, or let Q run those modules there with --offload',
    cause: error,
  });
}

async function planOf(model: string, flags: PlanFlags, signal: AbortSignal): Promise<Plan> {
  const quantization = quantizationWanted(flags);
  const options: PlanOptions = {
    deviceMap: mapOf(flags.deviceMap),
    maxMemory: flags.maxMemory === undefined ? undefined : budgetsOf(flags.maxMemory),
    torchDtype: flags.dtype,
    quantizationConfig: quantization,
    quantizedOffload: flags.wiring === 'accelerate' ? undefined : flags.offload,
    context: flags.context,
    batch: flags.batch,
    kvDtype: flags.kvDtype,
    wiring: flags.wiring,
  };
  if (model.endsWith('.json')) {
    const text = await readText(model);
    const json = parseJsonText(text, 'plan');
    if (isTree(json)) return planTreeOf(json, options, quantization);
    const config = parseModelConfig(text, { ignoreConfigKeys: flags.ignoreConfigKey });
    for (const { message } of config.warnings) warn(message, flags);
    return planFor(config, options);
  }
  const { revision, localFilesOnly, ignoreConfigKey: ignoreConfigKeys } = flags;
  return planFor(model, { ...options, revision, localFilesOnly, ignoreConfigKeys, signal });
}

function quantizationWanted(flags: PlanFlags): BitsAndBytesConfig | undefined {
  const quantization = quantizationOf({ ...flags, device: 'cpu' });
  if (flags.skipModules === undefined) return quantization;
  if (!quantization)
    throw new ConfigError('plan', '--skip-modules without a quantization', {
      fix: 'add --load-in-4bit or --load-in-8bit, or leave it out',
    });
  return quantization.with({ llmInt8SkipModules: flags.skipModules.split(',') });
}

/** The text of a file. @throws ConfigError for what cannot be read, and for what is no file */
async function readText(path: string): Promise<string> {
  try {
    if ((await stat(path)).isFile()) return await readFile(path, 'utf8');
  } catch (cause) {
    throw new ConfigError('plan', `cannot read ${path}`, {
      cause,
      why: (cause as NodeJS.ErrnoException).code,
      fix: 'give a folder, a Hugging Face id, or the path of a config.json',
    });
  }
  throw new ConfigError('plan', `${path} is no file`, { fix: 'give the path of a config.json' });
}

const isTree = (json: unknown): json is ModelTree => typeof json === 'object' && json !== null && 'modules' in json;

function planTreeOf(
  tree: ModelTree,
  { torchDtype, context, ...options }: PlanOptions,
  quantization: BitsAndBytesConfig | undefined,
): Plan {
  if (context !== undefined)
    throw new ConfigError('plan', 'the cache of a module tree is not known', {
      fix: 'give a config.json, or leave --context out',
    });
  const { deviceMap, maxMemory, quantizedOffload, wiring } = options;
  if (maxMemory === undefined)
    throw new ConfigError('plan', 'a module tree needs --max-memory', { fix: 'add --max-memory 0=10GiB,cpu=30GiB' });
  return planPlacement({
    tree,
    deviceMap,
    maxMemory,
    quantizedOffload,
    wiring,
    dtype: torchDtype ?? null,
    quantization: plannedQuantization(quantization),
  });
}

/** `0=10GiB,cpu=30GiB` as pairs. @throws ConfigError */
function budgetsOf(text: string): Budgets {
  return text.split(',').map((part) => {
    const [, device, size] = /^\s*([\w:]+)\s*=\s*(\S+)\s*$/.exec(part) ?? [];
    if (device === undefined)
      throw new ConfigError('plan', `"${part}" is no budget`, {
        fix: 'write DEVICE=SIZE, such as 0=10GiB or cpu=30GiB',
      });
    return [/^\d+$/.test(device) ? Number(device) : device, /^\d+$/.test(size) ? Number(size) : size] as const;
  });
}

function mapOf(text: string): PlanOptions['deviceMap'] {
  if (!text.trim().startsWith('{')) return /^\d+$/.test(text) ? Number(text) : text;
  try {
    return JSON.parse(text) as Record<string, string | number>;
  } catch (cause) {
    throw new ConfigError('plan', '--device-map is no valid JSON', { cause });
  }
}

function show(plan: Plan, { json, explain }: PlanFlags): void {
  const { deviceMap, usage, messages, size, largestLayer, maxMemory, adjusted } = plan;
  if (json)
    return printJson({
      deviceMap,
      usage,
      messages,
      size,
      largestLayer,
      maxMemory,
      adjusted,
      ...(explain && { placements: plan.explain().placements }),
    });
  for (const message of messages) if (message.level === 'warning') warn(describeMessage(message));
  printText(renderBars(plan, { width: process.stdout.columns ?? 100 }));
  print();
  if (explain) printText(tableOf(plan));
  else
    for (const [module, device] of Object.entries(deviceMap)) print(`${String(device).padEnd(5)} ${module || '(all)'}`);
}

/** The table of explanations. A module tree may name its modules in any way, also over several lines. */
function tableOf(plan: Plan): string {
  const { table, placements } = plan.explain();
  const hostile = placements.map(({ module }) => module).filter((module) => visible(module) !== module);
  return hostile.reduce((text, module) => text.replaceAll(module, () => visible(module)), table);
}
