// Everything that must hold on a GPU, in one file for a machine without node_modules: the conformance suite, the
// bitsandbytes goldens, the model goldens, perplexities, and that memory returns. Bundled by bundle.mjs. Usage: node
// suite.mjs [--device cuda:0] [--data FOLDER] [--scratch FOLDER] [--out FILE.json] [--only
// conformance,peer,blockwise,checkpoints,models,perplexity,cycles,load] [--filter REGEXP of conformance cases]
// --only plant writes past the end of a tensor, which compute-sanitizer must find.
// --shard I/N: every Nth conformance case from the Ith on; --exact: tensors of the conformance cases get memory of
// their own size, for compute-sanitizer (sanitize.mjs).
// --data: the goldens and evaluation.json; --scratch: a folder with 14 GB free, for loading a Llama-2-7B checkpoint of
// random weights.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import {
  AutoModelForCausalLM,
  BitsAndBytesConfig,
  freeMemory,
  openDevice,
  parseModelConfig,
  perplexityOf,
  type CausalModel,
  type LoadModelOptions,
} from '@q/transformers';
import {
  dequantizeBnb4,
  packedQkv,
  parseDType,
  quantizeBnb4,
  quantizeInt8,
  ropeKvWrite,
  weightTensors,
  type Backend,
  type FloatDType,
  type Tensor,
} from '@q/tensor';
import { runConformance } from '@q/tensor/conformance';
import { checkpoints, models, tensorsOf } from './goldens.js';
import { peer } from './peer.js';

const { values: args } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda:0' },
    data: { type: 'string' },
    scratch: { type: 'string' },
    out: { type: 'string' },
    only: { type: 'string' },
    filter: { type: 'string' },
    shard: { type: 'string' },
    exact: { type: 'boolean', default: false },
  },
});
const { device, data, scratch } = args;
const report: Record<string, unknown> = {};

async function section(name: string, possible: unknown, run: () => Promise<unknown>): Promise<void> {
  if (!possible || (args.only && !args.only.split(',').includes(name))) return;
  const started = performance.now();
  try {
    report[name] = await run();
  } catch (error) {
    report[name] = { error: (error as Error).stack };
  }
  console.log(
    name,
    `${((performance.now() - started) / 1000).toFixed(1)} s`,
    JSON.stringify(report[name]).slice(0, 3000),
  );
}

interface BlockwiseCase {
  key: string;
  weight: string;
  quant_type: 'nf4' | 'fp4';
  blocksize: number;
  nested: boolean;
}

/** Bytes that differ from bitsandbytes', for every case of blockwise_4bit. */
async function blockwise(backend: Backend): Promise<unknown> {
  const folder = join(data!, 'bitsandbytes');
  const cases = JSON.parse(readFileSync(join(folder, 'blockwise_4bit.json'), 'utf8')) as BlockwiseCase[];
  await using source4 = await tensorsOf(folder, 'blockwise_4bit');
  const { checkpoint, bytes } = source4;
  const different: string[] = [];
  const compare = async (name: string, actual: Tensor, key: string) => {
    const [got, wanted] = [await actual.toBytes(), await bytes(key)];
    const count = wanted.reduce((sum, byte, i) => sum + Number(byte !== got[i]), 0);
    if (count > 0 || got.length !== wanted.length)
      different.push(`${key}: ${name} differs in ${count} of ${wanted.length} bytes`);
  };
  for (const { key, weight: name, quant_type: quantType, blocksize: blockSize, nested } of cases) {
    const { dtype, elements } = checkpoint.tensor(name);
    const weight = backend.empty([1, elements], parseDType(dtype));
    backend.upload(weight, await bytes(name));
    const quantized = quantizeBnb4(weight, { quantType, blockSize, doubleQuant: nested });
    await compare('packed', quantized.codes, `${key}.packed`);
    if ('codebook' in quantized.absmax) {
      await compare('absmax', quantized.absmax.codes, `${key}.absmax`);
      await compare('nested', quantized.absmax.absmax, `${key}.nested_absmax`);
      await compare('offset', quantized.absmax.offset, `${key}.offset`);
    } else await compare('absmax', quantized.absmax, `${key}.absmax`);
    await compare('dequant', dequantizeBnb4(quantized, weight.dtype as FloatDType), `${key}.dequant`);
    for (const tensor of weightTensors(quantized)) tensor.dispose();
  }
  await using int8 = await tensorsOf(folder, 'llm_int8');
  const source = int8.checkpoint.tensor('weight');
  const weight = backend.empty([source.shape[0], source.shape[1]], source.dtype);
  backend.upload(weight, await int8.bytes('weight'));
  const quantized = quantizeInt8(weight);
  for (const [tensor, key] of [
    [quantized.codes, 'weight.CB'],
    [quantized.absmax, 'weight.SCB'],
  ] as const) {
    const [got, wanted] = [await tensor.toBytes(), await int8.bytes(key)];
    const count = wanted.reduce((sum, byte, i) => sum + Number(byte !== got[i]), 0);
    if (count > 0) different.push(`${key} differs in ${count} of ${wanted.length} bytes`);
  }
  return { cases: cases.length, different: different.length, list: different.slice(0, 40) };
}

const load = (folder: string, options: LoadModelOptions = {}): Promise<CausalModel> =>
  AutoModelForCausalLM.fromPretrained(folder, { deviceMap: device, ...options });

/** Perplexities of nano on the evaluation text. */
async function perplexity(): Promise<unknown> {
  const documents = JSON.parse(readFileSync(join(data!, 'evaluation.json'), 'utf8')) as string[];
  const nf4 = (more: object) => ({
    quantizationConfig: new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'nf4', ...more }),
  });
  const variants: Record<string, LoadModelOptions> = {
    fp32: { torchDtype: 'float32' },
    fp16: { torchDtype: 'float16' },
    bf16: {},
    int8: { torchDtype: 'float16', loadIn8bit: true },
    nf4: { torchDtype: 'float32', ...nf4({}) },
    'nf4 fp16': { torchDtype: 'float16', ...nf4({ bnb4bitComputeDtype: 'float16' }) },
    'nf4 double': { torchDtype: 'float32', ...nf4({ bnb4bitUseDoubleQuant: true }) },
    fp4: { torchDtype: 'float32', ...nf4({ bnb4bitQuantType: 'fp4' }) },
  };
  const results: Record<string, unknown> = {};
  for (const [name, options] of Object.entries(variants)) {
    await using model = await load('@q/nano', options);
    const ids = documents.flatMap((text) => model.tokenizer!.encode(text));
    const windows = Array.from({ length: 200 }, (_, i) => ids.slice(i * 1024, (i + 1) * 1024));
    const started = performance.now();
    results[name] = {
      perplexity: perplexityOf(await model.score(windows)),
      seconds: (performance.now() - started) / 1000,
    };
  }
  return results;
}

/** Device memory before and after many generations that end, are left early, or are aborted. */
async function cycles(): Promise<unknown> {
  const count = 1000;
  let model = await load('@q/nano', { loadIn4bit: true, torchDtype: 'float16' });
  await model.generate({ prompt: 'const x = ', maxNewTokens: 8 });
  await model.dispose();
  const before = await freeMemory(); // the driver has loaded the kernels, which takes memory for good
  model = await load('@q/nano', { loadIn4bit: true, torchDtype: 'float16' });
  for (let i = 0; i < count; i++) {
    if (i % 50 === 49) {
      await model.dispose();
      model = await load('@q/nano', { loadIn4bit: true, torchDtype: 'float16' });
    }
    const abort = new AbortController();
    const generation = model.generate({ prompt: 'const x = ', maxNewTokens: 8, signal: abort.signal });
    if (i % 3 === 0) await generation;
    else if (i % 3 === 1) for await (const step of generation) if (step.index === 2) break;
    if (i % 3 === 2) {
      abort.abort();
      await generation.then(
        () => undefined,
        () => undefined,
      );
    }
  }
  await model.dispose();
  return { cycles: count, before, after: await freeMemory() };
}

/**
 * Seconds and host memory of loading a 13.5 GB checkpoint of the Llama-2-7B shape from the page cache, quantizing it on
 * the way.
 */
async function loading(): Promise<unknown> {
  const folder = join(scratch!, 'llama-7b');
  const config = parseModelConfig({
    model_type: 'llama',
    architectures: ['LlamaForCausalLM'],
    vocab_size: 32000,
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    hidden_act: 'silu',
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: false,
    torch_dtype: 'float16',
    bos_token_id: 1,
    eos_token_id: 2,
  });
  const results: Record<string, unknown> = {};
  {
    await using model = await AutoModelForCausalLM.fromConfig(config, { deviceMap: device });
    const started = performance.now();
    await model.savePretrained(folder);
    results.saveSeconds = (performance.now() - started) / 1000;
  }
  const variants: Record<string, LoadModelOptions> = {
    nf4: {
      quantizationConfig: new BitsAndBytesConfig({
        loadIn4bit: true,
        bnb4bitQuantType: 'nf4',
        bnb4bitComputeDtype: 'float16',
      }),
    },
    int8: { loadIn8bit: true },
    fp16: {},
  };
  for (const [name, options] of Object.entries(variants)) {
    const before = process.memoryUsage().rss;
    let peak = before;
    const timer = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss)), 5);
    const delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
    const started = performance.now();
    await using model = await load(folder, options);
    const seconds = (performance.now() - started) / 1000;
    clearInterval(timer);
    delay.disable();
    results[name] = {
      seconds,
      hostPeakBytes: peak - before,
      eventLoopP99Ms: delay.percentile(99) / 1e6,
      weightBytes: model.weightBytes,
    };
  }
  return results;
}

const backend = openDevice(device);
report.device = backend.caps;
console.log(JSON.stringify(report.device));
await section('conformance', true, async () => {
  if (args.exact) backend.empty = (shape, dtype) => backend.allocate(shape, dtype);
  const [index, of] = (args.shard ?? '0/1').split('/').map(Number);
  const { passed, failures } = await runConformance(backend, {
    filter: args.filter === undefined ? undefined : new RegExp(args.filter),
    shard: { index, of },
  });
  return { passed, failed: failures.length, failures: failures.slice(0, 60) };
});
await section('blockwise', data, () => blockwise(backend));
await section('plant', args.only === 'plant', async () => {
  // The rules of commands refuse sizes that lead past a tensor; what a block table holds, a GPU trusts.
  const cache = () => backend.allocate([1, 1, 2, 8], 'f32');
  const [keys, values, qkv] = [cache(), cache(), backend.allocate([1, 24], 'f32')];
  const i32 = (value: number, shape: number[]) => backend.tensor([value], shape, 'i32');
  const batch = {
    ...{ tokens: 1, sequences: 1, maxQuery: 1, maxContext: 1, positions: i32(0, [1]) },
    ...{ sequenceOf: i32(0, [1]), contextLengths: i32(1, [1]), blockTables: i32(63, [1, 1]) },
    sequenceStarts: backend.tensor([0, 1], [2], 'i32'),
  };
  ropeKvWrite(qkv, { keys, values }, batch, packedQkv(1, 1, 8));
  await backend.flush();
  return 'wrote 4 KB past the end';
});
await backend.close();
await section('peer', true, () => peer(device));
await section('checkpoints', data, () => checkpoints(join(data!, 'bitsandbytes/checkpoints'), device));
await section('models', data, () => models(join(data!, 'models'), device));
await section('perplexity', data, perplexity);
await section('cycles', true, cycles);
await section('load', scratch, loading);
if (args.out) writeFileSync(args.out, JSON.stringify(report, null, 2));

/** A section is broken when it threw, a conformance case failed, or bytes differ from bitsandbytes'. */
const isBroken = (result: { error?: string; failed?: number; different?: number }): boolean =>
  result.error !== undefined || (result.failed ?? 0) > 0 || (result.different ?? 0) > 0;
const broken = Object.keys(report).filter((name) => isBroken(report[name] as object));
if (broken.length > 0) {
  console.error(`failed: ${broken.join(', ')}`);
  process.exitCode = 1;
}
