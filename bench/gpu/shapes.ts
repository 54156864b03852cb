// Speeds of well-known models' shapes with random weights: tokens a second of decoding and of prefill, milliseconds to
// the first token. Bundled by bundle.mjs. Usage: node shapes.mjs --out FILE.json [--device cuda:0] [--shapes
// shapes.json] [--only opt-6.7b,t5-11b] [--repeat 3]
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import {
  AutoModelForCausalLM,
  AutoModelForSeq2SeqLM,
  BitsAndBytesConfig,
  parseModelConfig,
  taskOf,
  type CausalModel,
  type GenerationStats,
  type LoadModelOptions,
  type ModelConfig,
  type Seq2SeqModel,
} from '@q/transformers';

const { values: args } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda:0' },
    shapes: { type: 'string', default: fileURLToPath(new URL('shapes.json', import.meta.url)) },
    only: { type: 'string' },
    repeat: { type: 'string', default: '3' },
    out: { type: 'string' },
  },
});
const repeat = Number(args.repeat);

type Model = CausalModel | Seq2SeqModel;

const formats: Readonly<Record<string, LoadModelOptions>> = {
  fp16: {},
  int8: { loadIn8bit: true },
  nf4: {
    quantizationConfig: new BitsAndBytesConfig({
      loadIn4bit: true,
      bnb4bitQuantType: 'nf4',
      bnb4bitComputeDtype: 'float16',
    }),
  },
};

/** Of each shape the formats to measure; a mixture of experts only where it fits and is wanted. */
const formatsOf = (name: string): readonly string[] => (name.startsWith('qwen3') ? ['nf4'] : Object.keys(formats));

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Ids from a multiplicative generator (Park and Miller). */
function randomIds(length: number, vocabSize: number, seed: number): number[] {
  let state = seed + 1;
  return Array.from({ length }, () => (state = (state * 48271) % 2147483647) % vocabSize);
}

async function run(model: Model, batch: number, prompt: number, maxNewTokens: number): Promise<GenerationStats> {
  const inputIds = Array.from({ length: batch }, (_, row) => randomIds(prompt, 30_000, row));
  return (await model.generate({ inputIds, maxNewTokens, eosTokenId: null })).stats;
}

const spread = (values: readonly number[]) => ({
  median: median(values),
  min: Math.min(...values),
  max: Math.max(...values),
});

/** One figure of several runs after a warm-up. */
async function figure(
  model: Model,
  [batch, prompt, maxNewTokens]: readonly [number, number, number],
  of: (stats: GenerationStats) => number,
) {
  await run(model, batch, prompt, maxNewTokens);
  const values: number[] = [];
  for (let i = 0; i < repeat; i++) values.push(of(await run(model, batch, prompt, maxNewTokens)));
  return spread(values);
}

async function speeds(config: ModelConfig, options: LoadModelOptions) {
  const settings = { deviceMap: args.device, torchDtype: 'float16' as const, ...options, maxBatchSize: 8 };
  const encodes = taskOf(config) === 'seq2seqLM';
  const auto = encodes ? AutoModelForSeq2SeqLM : AutoModelForCausalLM;
  await using model: Model = await auto.fromConfig(config, settings);
  const prefill = ({ prefillTokensPerSecond }: GenerationStats) => prefillTokensPerSecond;
  return {
    weightBytes: model.weightBytes,
    decodeWeightBytes: model.decodeWeightBytes,
    decodeTokensPerSecond: await figure(model, [1, 128, 64], (stats) => stats.decodeTokensPerSecond),
    firstTokenMs: await figure(model, [1, 128, 2], (stats) => stats.prefillMs),
    // Of an encoder-decoder this is the encoder (and the decoder's first step) over 8 texts.
    prefillTokensPerSecond: await figure(model, encodes ? [8, 512, 2] : [1, 1024, 2], prefill),
  };
}

const shapes = JSON.parse(readFileSync(args.shapes, 'utf8')) as Record<string, object>;
const results: Record<string, unknown> = {};
for (const [name, shape] of Object.entries(shapes)) {
  if (args.only && !args.only.split(',').includes(name)) continue;
  for (const format of formatsOf(name)) {
    const started = performance.now();
    const result = await Promise.resolve()
      .then(() => speeds(parseModelConfig(shape), formats[format]))
      .catch((error: Error) => ({ error: error.message }));
    results[`${name} ${format}`] = result;
    console.log(`${name} ${format}`, `${((performance.now() - started) / 1000).toFixed(1)} s`, JSON.stringify(result));
    if (args.out) writeFileSync(args.out, JSON.stringify(results, undefined, 1));
  }
}
