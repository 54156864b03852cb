// Encoder-decoders that bitsandbytes quantized on a GPU, and quantizing while loading. T5's `wo` stays dense, and in
// float32 where the others are float16.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openCheckpoint } from '@q/loader';
import { buildModel, slotsOf } from '@q/models';
import { referenceBackend, type FloatDType } from '@q/tensor';
import { describe, expect, it } from 'vitest';
import { GenerationConfig } from '@q/config';
import { AutoModelForSeq2SeqLM, BitsAndBytesConfig, Seq2SeqModel, type LoadModelOptions } from './index.js';
import {
  checkpointFiles,
  compareLogits,
  expectedLogits,
  expectedNumber,
  expectedRows,
  temporaryFolders,
  unpackCheckpoint,
} from './testing.js';
import { fillWeights, openWeights, statedConfig } from './weight-source.js';

const temporary = temporaryFolders();
const load = async (name: string, options: LoadModelOptions = {}): Promise<Seq2SeqModel> =>
  AutoModelForSeq2SeqLM.fromPretrained(await unpackCheckpoint(name, await temporary(name)), { threads: 1, ...options });

// Bounds as in bitsandbytes.test.ts, for the same reasons.
describe.each([
  { variant: 'nf4-nested-bf16', bound: 2.5e-2 },
  { variant: 'int8', bound: 3.5e-2 },
])('$variant', ({ variant, bound }) => {
  const pack = `t5.${variant}`;
  const inputIds = expectedRows(pack, 'input_ids');
  const decoderInputIds = expectedRows(pack, 'decoder_input_ids');

  it('gives the logits and the greedy tokens that Python gives', async () => {
    await using model = await load(pack);
    expect(model.warnings).toEqual([]);
    using output = model.forward({ inputIds, decoderInputIds });
    const logits = (await output.logits.data()) as Float32Array;
    expect(compareLogits(logits, expectedLogits(pack, `logits.${variant}`)).relative).toBeLessThan(bound);
    const [expected] = expectedRows(pack, `greedy.${variant}`);
    const { sequences } = await model.generate({
      inputIds: [inputIds[0]],
      maxNewTokens: expected.length - 1,
      doSample: false,
      eosTokenId: null,
    });
    expect(sequences).toEqual([expected]);
  });

  it('has the footprint that Python reports, and saves back what it was loaded from', async () => {
    await using model = await load(pack);
    expect(model.getMemoryFootprint()).toBe(expectedNumber(pack, `footprint.${variant}`));
    const folder = await temporary('saved');
    await model.savePretrained(folder);
    for (const [file, bytes] of Object.entries(checkpointFiles(pack)))
      expect((await readFile(join(folder, file))).equals(bytes), file).toBe(true);
  });
});

describe('quantizing while loading', () => {
  const skips = new BitsAndBytesConfig({ loadIn8bit: true, llmInt8SkipModules: ['lm_head', 'encoder.block.0'] });
  it.each([
    ['8 bits', { torchDtype: 'float16', loadIn8bit: true }, 'f16', 'f32', 'i8'],
    ['4 bits', { torchDtype: 'bfloat16', loadIn4bit: true }, 'bf16', 'bf16', 'u8'],
    ['other modules skipped', { torchDtype: 'float16', quantizationConfig: skips }, 'f16', 'f32', 'f16'],
  ] as const)('leaves wo as it is: %s', async (_, options, dense, wo, first) => {
    await using model = await load('t5-v1_1', options);
    const folder = await temporary('quantized');
    await model.savePretrained(folder);
    await using checkpoint = await openCheckpoint(folder);
    const dtypes = new Map([...checkpoint.tensors].map(([name, { dtype }]) => [name, dtype]));
    for (const [name, dtype] of dtypes) {
      if (name.endsWith('.wo.weight')) expect(dtype, name).toBe(wo);
      if (/(norm|lm_head|shared|relative_attention_bias)\.weight$/.test(name)) expect(dtype, name).toBe(dense);
    }
    expect(dtypes.get('encoder.block.0.layer.0.SelfAttention.q.weight')).toBe(first);
    expect(dtypes.get('encoder.block.1.layer.0.SelfAttention.q.weight')).not.toBe(dense);
    await using again = await AutoModelForSeq2SeqLM.fromPretrained(folder, { threads: 1 });
    expect(again.warnings).toEqual([]);
    expect(again.summary()).toEqual(model.summary());
  });
});

/** Loads as a GPU does, where activations and dense weights are 16 bit, on the device of plain TypeScript. */
async function loadIn16Bit(folder: string, dtype: FloatDType): Promise<Seq2SeqModel> {
  const stated = await statedConfig(folder, {});
  await using source = await openWeights(stated, 'seq2seqLM', folder, {}, []);
  const { config } = source;
  const backend = referenceBackend();
  const model = buildModel(config, 'seq2seqLM');
  const slots = slotsOf(config, model);
  const stored = config.quantizationConfig ?? undefined;
  const options = { backend, dtype, modelDType: dtype, stored, wanted: undefined };
  return new Seq2SeqModel({
    config,
    backend,
    model,
    slots: await fillWeights(slots, config, source, options),
    folder,
    generationConfig: GenerationConfig.fromJSON(await readFile(join(folder, 'generation_config.json'), 'utf8')),
    tokenizer: undefined,
    quantizationConfig: stored,
    engine: { dtype },
    warnings: [],
  });
}

describe('with activations of 16 bit, as on a GPU', () => {
  // The bounds of the CPU: measured 0.0241 (CPU 0.0237) and 0.0215 (CPU 0.0186).
  it.each([
    ['t5.int8', 'int8', 'f16', 3.5e-2],
    ['t5.nf4-nested-bf16', 'nf4-nested-bf16', 'bf16', 2.5e-2],
  ] as const)('%s: logits, footprint and saved files are those of Python', async (pack, variant, dtype, bound) => {
    const folder = await unpackCheckpoint(pack, await temporary(pack));
    await using model = await loadIn16Bit(folder, dtype);
    expect(model.getMemoryFootprint()).toBe(expectedNumber(pack, `footprint.${variant}`));
    const input = {
      inputIds: expectedRows(pack, 'input_ids'),
      decoderInputIds: expectedRows(pack, 'decoder_input_ids'),
    };
    using output = model.forward(input);
    const logits = (await output.logits.data()) as Float32Array;
    expect(compareLogits(logits, expectedLogits(pack, `logits.${variant}`)).relative).toBeLessThan(bound);
    const saved = await temporary('saved');
    await model.savePretrained(saved);
    for (const [file, bytes] of Object.entries(checkpointFiles(pack)))
      expect((await readFile(join(saved, file))).equals(bytes), file).toBe(true);
  });

  it.each(['float16', 'bfloat16'] as const)('%s: wo is as precise as on a CPU', async (torchDtype) => {
    const name = 't5-v1_1';
    const folder = await unpackCheckpoint(name, await temporary(name));
    await using model = await loadIn16Bit(folder, torchDtype === 'float16' ? 'f16' : 'bf16');
    await using onCpu = await load(name, { torchDtype });
    expect(model.getMemoryFootprint()).toBe(onCpu.getMemoryFootprint());
    const [saved, expected] = [await temporary('saved'), await temporary('saved')];
    await model.savePretrained(saved);
    await onCpu.savePretrained(expected);
    const weights = (place: string) => readFile(join(place, 'model.safetensors'));
    expect((await weights(saved)).equals(await weights(expected))).toBe(true);
    await using checkpoint = await openCheckpoint(saved);
    const wo = [...checkpoint.tensors].filter(([each]) => each.endsWith('.wo.weight'));
    expect(new Set(wo.map(([, { dtype }]) => dtype))).toEqual(new Set([torchDtype === 'float16' ? 'f32' : 'bf16']));
  });

  it('random weights have the dtypes of loaded ones', async () => {
    await using half = await load('t5-v1_1', { torchDtype: 'float16' });
    await using dummy = await AutoModelForSeq2SeqLM.fromConfig(half.config, { torchDtype: 'float16', threads: 1 });
    expect(dummy.getMemoryFootprint()).toBe(half.getMemoryFootprint());
  });
});

describe('the embedding', () => {
  const names = ['shared.weight', 'encoder.embed_tokens.weight', 'decoder.embed_tokens.weight', 'lm_head.weight'];

  it.each([
    [['encoder.embed_tokens.weight']],
    [['decoder.embed_tokens.weight', 'shared.weight']],
    [['lm_head.weight', 'encoder.embed_tokens.weight']],
  ])('may be stored as %j, and is saved once, as shared.weight', async (stored) => {
    const folder = await unpackCheckpoint('t5', await temporary('renamed'));
    const path = join(folder, 'model.safetensors');
    await writeFile(path, storedAs(await readFile(path), stored));
    await using model = await load('t5');
    await using other = await AutoModelForSeq2SeqLM.fromPretrained(folder, { threads: 1 });
    const input = { inputIds: [[5, 6, 7]], decoderInputIds: [[0, 3]] };
    using expected = model.forward(input);
    using actual = other.forward(input);
    expect(await actual.logits.data()).toEqual(await expected.logits.data());
    expect(other.getMemoryFootprint()).toBe(model.getMemoryFootprint());
    expect(other.summary()).toEqual(model.summary());
    const saved = await temporary('saved');
    await other.savePretrained(saved);
    await using checkpoint = await openCheckpoint(saved);
    expect(names.filter((name) => checkpoint.tensors.has(name))).toEqual(['shared.weight']);
  });
});

/** A safetensors file whose `shared.weight` has other names, which all have the same bytes. */
function storedAs(file: Buffer, names: readonly string[]): Buffer {
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + length).toString()) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const { 'shared.weight': shared, ...rest } = header;
  const data = file.subarray(8 + length);
  const [from, to] = shared.data_offsets;
  const table = data.subarray(from, to);
  // The table's place stays, under the first name; copies go to the end.
  const copies = names.slice(1).map((name, i): [string, typeof shared] => {
    const start = data.length + i * table.length;
    return [name, { ...shared, data_offsets: [start, start + table.length] }];
  });
  const text = Buffer.from(JSON.stringify({ ...rest, [names[0]]: shared, ...Object.fromEntries(copies) }));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([size, text, data, ...copies.map(() => table)]);
}
