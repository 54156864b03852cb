import { AutoModelForCausalLM, BitsAndBytesConfig, type GenerationStats } from '@q/transformers';
import type { Command } from 'commander';
import { addOutputFlags, defaultModel } from '../flags.js';
import { quantizationName } from '../load.js';
import { bytes, colors, count, print, printFields, printJson, printTable } from '../output.js';
import { positiveInteger } from '../parse.js';
import type { Context } from '../program.js';
import { statsLine } from './run.js';

const prompt = `/**
 * Adds up the numbers of a list.
 */
export function sum(values) {
`;

export function addDemo(program: Command, { signal }: Context): void {
  addOutputFlags(
    program
      .command('demo')
      .description(
        'Load the built-in model in 4 bit, show where it went and what was quantized, and let it write some code.',
      )
      .option('--device <device>', 'where the model goes: cpu, cuda, cuda:0', 'cpu')
      .option('-n, --max-new-tokens <n>', 'most tokens to add', positiveInteger, 96),
  ).action(async ({ device, maxNewTokens, json }: { device: string; maxNewTokens: number; json?: boolean }) => {
    const started = performance.now();
    const quantizationConfig = new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'nf4' });
    await using model = await AutoModelForCausalLM.fromPretrained(defaultModel, {
      quantizationConfig,
      deviceMap: device,
      signal,
    });
    const loadMs = performance.now() - started;
    const { linears, bytes: sizes, parameters } = model.summary();
    const report = {
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
    const generation = model.generate({ prompt, maxNewTokens, signal });
    if (json) {
      const { text, stats } = await generation;
      return printJson({ ...report, prompt, text, loadMs, stats });
    }
    printFields([
      ['model', `${defaultModel}, ${count(parameters)} parameters of llama, trained on JavaScript and TypeScript`],
      ['device', report.device],
      ['placement', JSON.stringify(model.hfDeviceMap)],
      ['quantization', report.quantization],
      [
        'memory footprint',
        `${bytes(report.memoryFootprint)} (${bytes(report.weightBytes)} with scales; ${bytes(2 * parameters)} in 16 bit)`,
      ],
    ]);
    print();
    printTable(
      ['weights', 'linear layers>', 'bytes>'],
      Object.entries(sizes).map(([format, size]) => [
        format === 'other' ? 'embedding and norms' : format,
        linears[format] ?? '',
        bytes(size),
      ]),
    );
    print();
    process.stdout.write(colors.dim(prompt));
    let stats: GenerationStats | undefined;
    for await (const step of generation) {
      process.stdout.write(step.text);
      stats = step.stats ?? stats;
    }
    print('\n');
    print(statsLine(stats!, loadMs));
  });
}
