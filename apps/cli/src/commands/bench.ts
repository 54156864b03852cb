import {
  AutoModelForCausalLM,
  ConfigError,
  describeQuantization,
  type CausalModel,
  type GenerationStats,
} from '@q/transformers';
import { Option, type Command } from 'commander';
import { withLoopDelay, type LoopDelay } from '../bench/delay.js';
import { machine } from '../bench/machine.js';
import { higherOf, measurePeaks, type Peaks } from '../bench/peaks.js';
import { shapeConfig, shapeNames } from '../bench/shapes.js';
import { addModelFlags, loadOptions, modelArgument, numericsOption, type ModelFlags } from '../flags.js';
import { quantizationName } from '../load.js';
import { bytes, note, printFields, printJson, rate, seconds } from '../output.js';
import { positiveInteger, wholeNumber } from '../parse.js';
import type { Context } from '../program.js';

interface BenchFlags extends ModelFlags {
  shape?: string;
  loadFormat?: 'auto' | 'dummy';
  batch: number;
  promptTokens: number;
  newTokens: number;
  repeat: number;
  seed: number;
}

export function addBench(program: Command, { signal }: Context): void {
  addModelFlags(
    program
      .command('bench')
      .description('Measure prefill and decode speed, beside what the machine can do.')
      .argument('[model]', `${modelArgument}; or use --shape`)
      .option('--shape <shape>', `random weights of this shape: ${shapeNames.join(', ')}, or a config.json`)
      .addOption(
        new Option(
          '--load-format <format>',
          'dummy makes random weights instead of reading them (default: dummy with --shape, else auto)',
        ).choices(['auto', 'dummy']),
      )
      .option('--batch <n>', 'sequences at a time', positiveInteger, 1)
      .option('--prompt-tokens <n>', 'tokens of each prompt', positiveInteger, 512)
      .option('--new-tokens <n>', 'tokens to decode for each prompt', positiveInteger, 64)
      .option('--repeat <n>', 'measured runs; the median counts', positiveInteger, 3)
      .option('--seed <n>', 'seed of the random prompts', wholeNumber, 0)
      .addOption(numericsOption()),
  ).action(async (id: string | undefined, flags: BenchFlags) => {
    if (flags.newTokens < 2)
      throw new ConfigError('bench', 'decoding needs at least two new tokens', { fix: 'use --new-tokens 2 or more' });
    const {
      result: { model, loadMs },
      delay: loading,
    } = await withLoopDelay(() => load(id, flags, signal));
    await using _ = model;
    const runs: GenerationStats[] = [];
    if (!flags.json) note('measuring what the device can do, before and after ...');
    const measure = () => measurePeaks(model.backend, Number(model.backend.caps.features.threads ?? 1), model.dtype);
    const before = await measure();
    signal.throwIfAborted();
    await generateOnce(model, { ...flags, promptTokens: Math.min(flags.promptTokens, 64), newTokens: 4 }, signal); // warm-up
    const { delay: generating } = await withLoopDelay(async () => {
      for (let i = 0; i < flags.repeat; i++) runs.push(await generateOnce(model, flags, signal));
    });
    const peaks = higherOf(before, await measure());
    const result = {
      name: id ?? flags.shape!,
      ...figures(model, flags, runs, peaks),
      loadMs,
      eventLoop: { loading, generating },
      machine: machine(),
    };
    if (flags.json) printJson(result);
    else show(result);
  });
}

async function load(
  id: string | undefined,
  flags: BenchFlags,
  signal: AbortSignal,
): Promise<{ model: CausalModel; loadMs: number }> {
  if ((id === undefined) === (flags.shape === undefined))
    throw new ConfigError('bench', 'give a model or --shape, and not both', {
      fix: 'q bench --shape tinyllama-1.1b, or q bench @q/nano',
    });
  if (flags.shape !== undefined && flags.loadFormat === 'auto')
    throw new ConfigError('bench', 'a shape has no weights to load', { fix: 'use --load-format dummy' });
  // The prompts and new tokens of the whole batch stay in the cache at once.
  const options = { ...loadOptions(flags, signal), maxBatchSize: flags.batch };
  const started = performance.now();
  const model =
    flags.shape === undefined
      ? await AutoModelForCausalLM.fromPretrained(id!, { ...options, loadFormat: flags.loadFormat })
      : await AutoModelForCausalLM.fromConfig(await shapeConfig(flags.shape), options);
  return { model, loadMs: performance.now() - started };
}

async function generateOnce(
  model: CausalModel,
  { batch, promptTokens, newTokens, seed }: BenchFlags,
  signal: AbortSignal,
): Promise<GenerationStats> {
  const inputIds = Array.from({ length: batch }, (_, row) =>
    randomIds(promptTokens, model.config.vocabSize, seed + row),
  );
  return (await model.generate({ inputIds, maxNewTokens: newTokens, eosTokenId: null, signal })).stats;
}

/** Ids from a multiplicative generator (Park and Miller), the same for the same seed. */
function randomIds(length: number, vocabSize: number, seed: number): number[] {
  let state = (seed % 2147483646) + 1;
  return Array.from({ length }, () => (state = (state * 48271) % 2147483647) % vocabSize);
}

const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const spread = (values: readonly number[]) => ({ min: Math.min(...values), max: Math.max(...values) });

function figures(
  model: CausalModel,
  { batch, promptTokens, newTokens, repeat }: BenchFlags,
  runs: readonly GenerationStats[],
  peaks: Peaks,
) {
  const prefill = runs.map((run) => run.prefillTokensPerSecond);
  const decode = runs.map((run) => run.decodeTokensPerSecond);
  const stepMs = median(runs.map((run) => run.decodeMs)) / (newTokens - 1);
  const weightBytes = model.decodeWeightBytes;
  const cacheBytes = model.cacheBytesPerToken * (promptTokens + newTokens / 2) * batch;
  const perSecond = (count: number) => count / (stepMs / 1000);
  const prefillOps = flopsPerPromptToken(model, promptTokens) * median(prefill);
  const arithmetic = arithmeticOf(model, peaks);
  return {
    device: model.backend.caps.name,
    quantization: quantizationName(model),
    parameters: model.summary().parameters,
    weightBytes: model.weightBytes,
    memoryFootprint: model.getMemoryFootprint(),
    batch,
    promptTokens,
    newTokens,
    repeat,
    prefill: {
      tokensPerSecond: median(prefill),
      ...spread(prefill),
      opsPerSecond: prefillOps,
      arithmetic,
      shareOfPeak: prefillOps / peaks.opsPerSecond[arithmetic],
    },
    decode: {
      tokensPerSecond: median(decode),
      ...spread(decode),
      stepMs,
      weightBytesPerStep: weightBytes,
      cacheBytesPerStep: cacheBytes,
      bytesPerSecond: perSecond(weightBytes),
      bytesPerSecondWithCache: perSecond(weightBytes + cacheBytes),
      shareOfBandwidth: perSecond(weightBytes) / peaks.readBytesPerSecond,
    },
    peaks,
    peakBytes: Math.max(...runs.map((run) => run.peakBytes)),
  };
}

/** The peak that prefill is compared with: 8-bit products where the CPU has them, else that of the activations. */
function arithmeticOf(model: CausalModel, { opsPerSecond }: Peaks): string {
  if (model.backend.device.type === 'cuda') return model.dtype;
  const { integerProducts = false } = describeQuantization(model.quantizationConfig) ?? {};
  return integerProducts && 'vnni' in opsPerSecond ? 'vnni' : 'f32';
}

/**
 * Two operations per weight of the layers (the head runs for the last token only), and attention over half the prompt
 * on average.
 */
function flopsPerPromptToken(model: CausalModel, promptTokens: number): number {
  const { config } = model;
  const { hiddenSize, vocabSize, numLayers, tieWordEmbeddings } = config;
  const attentionWidth = 'headDim' in config ? config.numHeads * config.headDim : hiddenSize;
  const layers = model.summary().parameters - vocabSize * hiddenSize * (tieWordEmbeddings ? 1 : 2);
  return 2 * layers + 2 * promptTokens * attentionWidth * numLayers;
}

interface BenchResult extends ReturnType<typeof figures> {
  readonly name: string;
  readonly loadMs: number;
  readonly eventLoop: { readonly loading: LoopDelay; readonly generating: LoopDelay };
}

function show({
  name,
  device,
  quantization,
  weightBytes,
  batch,
  promptTokens,
  newTokens,
  prefill,
  decode,
  peaks,
  loadMs,
  eventLoop,
}: BenchResult): void {
  const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
  printFields([
    ['model', `${name}, ${quantization}, ${bytes(weightBytes)}`],
    ['device', device],
    ['run', `batch ${batch}, prompt ${promptTokens} tokens, ${newTokens} new tokens`],
    ['load', seconds(loadMs)],
    [
      'prefill',
      `${rate(prefill.tokensPerSecond)} tok/s, ${(prefill.opsPerSecond / 1e9).toFixed(0)} GOP/s: ${percent(prefill.shareOfPeak)} of the ${prefill.arithmetic} peak`,
    ],
    [
      'decode',
      `${rate(decode.tokensPerSecond)} tok/s, ${decode.stepMs.toFixed(2)} ms per step, ${bytes(decode.bytesPerSecond)}/s of weights: ${percent(decode.shareOfBandwidth)} of the read bandwidth`,
    ],
    [
      'peaks',
      `${bytes(peaks.readBytesPerSecond)}/s read; ${Object.entries(peaks.opsPerSecond)
        .map(([name, ops]) => `${(ops / 1e9).toFixed(0)} GOP/s ${name}`)
        .join(', ')}`,
    ],
    [
      'event loop p99',
      `${eventLoop.loading.p99Ms} ms while loading, ${eventLoop.generating.p99Ms} ms while generating`,
    ],
  ]);
}
