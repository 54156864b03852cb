import { AutoModelForCausalLM, BitsAndBytesConfig, type CausalModel, type GenerationStats } from '@q/transformers';
import type { Command } from 'commander';
import { addOutputFlags, defaultModel } from '../flags.js';
import { quantizationName } from '../load.js';
import { bytes, count, paint, print, printFields, printJson, printTable, writeModelText } from '../output.js';
import { positiveInteger } from '../parse.js';
import type { Context } from '../program.js';
import { statsLine } from './run.js';

const prompt = `/**
 * Adds up the numbers of a list.
 */
export function sum(values) {
`;

interface DemoFlags {
  device: string;
  maxNewTokens: number;
  json?: boolean;
}

export function addDemo(program: Command, { signal }: Context): void {
  addOutputFlags(
    program
      .command('demo')
      .description(
        'Load the built-in model in 4 bit, show where it went and what was quantized, and let it write some code.',
      )
      .option('--device <device>', 'where the model goes: cpu, cuda, cuda:0', 'cpu')
      .option('-n, --max-new-tokens <n>', 'most tokens to add', positiveInteger, 96),
  ).action((flags: DemoFlags) => demo(flags, signal));
}

async function demo({ device, maxNewTokens, json }: DemoFlags, signal: AbortSignal): Promise<void> {
  const started = performance.now();
  const quantizationConfig = new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'nf4' });
  await using model = await AutoModelForCausalLM.fromPretrained(defaultModel, {
    quantizationConfig,
    deviceMap: device,
    signal,
  });
  const loadMs = performance.now() - started;
  const generation = model.generate({ prompt, maxNewTokens, signal });
  if (json) {
    const { text, stats } = await generation;
    return printJson({ ...reportOf(model), prompt, text, loadMs, stats });
  }
  show(reportOf(model));
  print();
  writeModelText(paint.dim(prompt));
  let stats: GenerationStats | undefined;
  for await (const step of generation) {
    writeModelText(step.text);
    stats = step.stats ?? stats;
  }
  print();
  print();
  print(statsLine(stats!, loadMs));
}

function reportOf(model: CausalModel) {
  const { linears, bytes: sizes, parameters } = model.summary();
  return {
    model: defaultModel,
    device: model.backend.caps.name,
    quantization: quantizationName(model),
    hfDeviceMap: model.hfDeviceMap,
    memoryFootprint: model.getMemoryFootprint(),
    weightBytes: model.weightBytes,
    parameters,
    linears,
    bytes: sizes,
  };
}

function show(report: ReturnType<typeof reportOf>): void {
  const { parameters, memoryFootprint, weightBytes, linears } = report;
  printFields([
    ['model', `${report.model}, ${count(parameters)} parameters of llama, trained on JavaScript and TypeScript`],
    ['device', report.device],
    ['placement', JSON.stringify(report.hfDeviceMap)],
    ['quantization', report.quantization],
    [
      'memory footprint',
      `${bytes(memoryFootprint)} (${bytes(weightBytes)} with scales; ${bytes(2 * parameters)} in 16 bit)`,
    ],
  ]);
  print();
  printTable(
    ['weights', 'linear layers>', 'bytes>'],
    Object.entries(report.bytes).map(([format, size]) => [
      format === 'other' ? 'embedding and norms' : format,
      linears[format] ?? '',
      bytes(size),
    ]),
  );
}
