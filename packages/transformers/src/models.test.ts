// Forward passes against transformers' outputs: 1e-4 absolute, and the same argmax at every position.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { AutoModelForCausalLM, planFor, type CausalModel } from './index.js';
import { compareLogits, expectedLogits, expectedRows, temporaryFolders, unpackCheckpoint } from './testing.js';

const temporary = temporaryFolders();
const tolerance = 1e-4;
const models = [
  'bloom',
  'cohere',
  'cohere-qknorm',
  'cohere2',
  'deepseek_v3',
  'deepseek_v3-lite',
  'falcon-7b',
  'falcon-new',
  'falcon-rw',
  'gpt2',
  'gpt2-bin',
  'gemma',
  'gemma2',
  'gemma3_text',
  'glm4',
  'gpt_bigcode',
  'gpt_bigcode-mha',
  'gpt_neox',
  'gpt_oss',
  'gptj',
  'granite',
  'llama',
  'llama-bf16',
  'llama-fp16',
  'llama-rope-dynamic',
  'llama-rope-linear',
  'llama-rope-llama3',
  'llama-rope-yarn',
  'llama-sharded',
  'ministral',
  'ministral3',
  'mistral',
  'mixtral',
  'mpt',
  'mpt-clip',
  'olmo2',
  'opt',
  'opt-postnorm',
  'phi',
  'phi-qknorm',
  'phi3',
  'phi3-longrope',
  'qwen2',
  'qwen2_moe',
  'qwen3',
  'qwen3_moe',
  'smollm3',
  'stablelm',
  'stablelm-qknorm',
  'starcoder2',
  'xglm',
];

const load = async (name: string, options: { legacy?: boolean } = {}): Promise<CausalModel> =>
  AutoModelForCausalLM.fromPretrained(await unpackCheckpoint(name, await temporary(name), options), {
    deviceMap: 'cpu',
    threads: 1,
  });

async function logitsOf(model: CausalModel, input: Parameters<CausalModel['forward']>[0]): Promise<Float32Array> {
  using output = model.forward(input);
  return (await output.logits.data()) as Float32Array;
}

describe.each(models)('%s', (name) => {
  const inputIds = expectedRows(name, 'input_ids');
  const attentionMask = expectedRows(name, 'attention_mask');

  it('gives the logits of the padded batch, zero at the padding', async () => {
    await using model = await load(name);
    const logits = await logitsOf(model, { inputIds, attentionMask });
    const { largest, argmaxDiffers } = compareLogits(
      logits,
      expectedLogits(name, 'logits_padded'),
      attentionMask.flat(),
    );
    expect(largest).toBeLessThanOrEqual(tolerance);
    expect(argmaxDiffers).toBe(0);
    const vocab = logits.length / attentionMask.flat().length;
    attentionMask.flat().forEach((kept, position) => {
      if (!kept)
        expect(logits.subarray(position * vocab, (position + 1) * vocab).every((value) => value === 0)).toBe(true);
    });
  });

  it('gives a row the same bits alone, in a batch, and with padding on either side', async () => {
    await using model = await load(name);
    const padded = await logitsOf(model, { inputIds, attentionMask });
    const row = padded.length / 2;
    expect(await logitsOf(model, { inputIds: [inputIds[0]] })).toEqual(padded.slice(0, row));
    const shown = inputIds[1].filter((_, i) => attentionMask[1][i] === 1);
    const pads = inputIds[1].length - shown.length;
    const vocab = row / inputIds[1].length;
    const alone = await logitsOf(model, { inputIds: [shown] });
    expect(alone).toEqual(padded.slice(row + pads * vocab));
    const zeros = Array.from({ length: pads }, () => 0);
    const right = await logitsOf(model, {
      inputIds: [[...shown, ...zeros]],
      attentionMask: [[...shown.map(() => 1), ...zeros]],
    });
    expect(right.slice(0, alone.length)).toEqual(alone);
  });

  // Dynamic scaling ends at a length that these steps pass: its own test is below.
  it.skipIf(name === 'llama-rope-dynamic')('gives the logits of four cached steps after the padded batch', async () => {
    await using model = await load(name);
    const stepIds = expectedRows(name, 'step_input_ids');
    using past = model.createPast({ sequences: 2, maxLength: inputIds[0].length + 4 });
    model.forward({ inputIds, attentionMask, past }).dispose();
    const steps: Float32Array[] = [];
    for (let step = 0; step < 4; step++)
      steps.push(await logitsOf(model, { inputIds: stepIds.map((ids) => [ids[step]]), past }));
    expect(past.lengths).toEqual(attentionMask.map((mask) => mask.reduce((a, b) => a + b) + 4));
    const vocab = steps[0].length / 2;
    const joined = new Float32Array(8 * vocab);
    for (let row = 0; row < 2; row++)
      steps.forEach((logits, step) =>
        joined.set(logits.subarray(row * vocab, (row + 1) * vocab), (row * 4 + step) * vocab),
      );
    const { largest, argmaxDiffers } = compareLogits(joined, expectedLogits(name, 'logits_step'));
    expect(largest).toBeLessThanOrEqual(tolerance);
    expect(argmaxDiffers).toBe(0);
  });

  // What is in shards or a pickle is saved otherwise than it was read: tests of their own.
  it.skipIf(['gpt2-bin', 'llama-sharded'].includes(name))('is planned, and saved byte for byte', async () => {
    const source = await unpackCheckpoint(name, await temporary(name));
    const plan = await planFor(source, { maxMemory: { cpu: '1GiB' } });
    expect(plan.deviceMap).toEqual({ '': 'cpu' });
    await using model = await AutoModelForCausalLM.fromPretrained(source, { deviceMap: 'cpu', threads: 1 });
    const folder = await temporary('saved');
    await model.savePretrained(folder);
    for (const file of ['config.json', 'model.safetensors'])
      expect((await readFile(join(folder, file))).equals(await readFile(join(source, file))), file).toBe(true);
  });

  // Older than this architecture.
  it.skipIf(name === 'ministral3')('is the same model from a config.json of transformers 4', async () => {
    await using model = await load(name);
    await using legacy = await load(name, { legacy: true });
    expect(await logitsOf(legacy, { inputIds, attentionMask })).toEqual(
      await logitsOf(model, { inputIds, attentionMask }),
    );
  });
});

/** How far logits are from the expected ones, and whether the best token is the same everywhere. */
function expectClose(logits: Float32Array, name: string, tensor: string, mask?: readonly number[]): void {
  const { largest, argmaxDiffers } = compareLogits(logits, expectedLogits(name, tensor), mask);
  expect(largest).toBeLessThanOrEqual(tolerance);
  expect(argmaxDiffers).toBe(0);
}

describe.each(['phi3-longrope', 'llama-rope-dynamic'])('the rotation of %s goes by length', (name) => {
  it('within the original length', async () => {
    await using model = await load(name);
    expectClose(await logitsOf(model, { inputIds: expectedRows(name, 'short_input_ids') }), name, 'short_logits');
  });
});

it('phi3-longrope takes the long factors from the first token past the original length on', async () => {
  const name = 'phi3-longrope';
  await using model = await load(name);
  const [sequence] = expectedRows(name, 'crossing_sequence');
  const prompt = expectedRows(name, 'short_input_ids')[0].length;
  const last: number[] = [];
  for (let length = prompt; length < sequence.length; length++) {
    const logits = await logitsOf(model, { inputIds: [sequence.slice(0, length)] });
    last.push(...logits.subarray(-logits.length / length));
  }
  expectClose(Float32Array.from(last), name, 'crossing_logits');
});

describe('phi3-longrope past its original length', () => {
  const name = 'phi3-longrope';
  const [sequence] = expectedRows(name, 'crossing_sequence');
  const [prompt] = expectedRows(name, 'short_input_ids');
  const options = { maxNewTokens: sequence.length - prompt.length, doSample: false, eosTokenId: [] };

  it('generates as if each step had computed the whole text', async () => {
    await using model = await load(name);
    for (const start of [prompt.length, prompt.length + 3, 17]) {
      const maxNewTokens = sequence.length - start;
      const { newTokens } = await model.generate({ inputIds: [sequence.slice(0, start)], ...options, maxNewTokens });
      expect(newTokens[0]).toEqual(sequence.slice(start));
    }
  });

  it('generates the same beside a text that is longer already', async () => {
    await using model = await load(name);
    const other = [...sequence, ...prompt];
    const { newTokens } = await model.generate({ inputIds: [other, prompt, prompt.slice(1)], ...options });
    const alone = await model.generate({ inputIds: [other], ...options });
    expect(newTokens[0]).toEqual(alone.newTokens[0]);
    expect(newTokens[1]).toEqual(sequence.slice(prompt.length));
  });

  it('refuses a past whose keys are void', async () => {
    await using model = await load(name);
    using past = model.createPast({ sequences: 1, maxLength: sequence.length });
    model.forward({ inputIds: [prompt], past }).dispose();
    expect(() => model.forward({ inputIds: [sequence.slice(prompt.length)], past })).toThrow(
      /from 17 tokens on this model rotates all keys in another way/,
    );
  });
});

describe('llama-rope-dynamic', () => {
  const name = 'llama-rope-dynamic';

  // Python rotates a whole batch by its longest row; here a row is what it is alone.
  it('rotates each row of an uneven batch by its own length', async () => {
    await using model = await load(name);
    const inputIds = expectedRows(name, 'uneven_input_ids');
    const attentionMask = expectedRows(name, 'uneven_attention_mask');
    const logits = await logitsOf(model, { inputIds, attentionMask });
    const row = logits.length / 2;
    expectClose(logits, name, 'uneven_logits', [...attentionMask[0], ...attentionMask[1].map(() => 0)]);
    const shown = inputIds[1].filter((_, i) => attentionMask[1][i] === 1);
    const alone = await logitsOf(model, { inputIds: [shown] });
    expect(logits.slice(2 * row - alone.length)).toEqual(alone);
  });

  it('gives the logits of four cached steps, each rotated by the length at that step', async () => {
    const source = await unpackCheckpoint(name, await temporary(name));
    const path = join(source, 'config.json');
    const config = JSON.parse(await readFile(path, 'utf8')) as { rope_parameters: object };
    // A longer reach, and the same rotation.
    const rope_parameters = { ...config.rope_parameters, original_max_position_embeddings: 16 };
    await writeFile(path, JSON.stringify({ ...config, rope_parameters }));
    await using model = await AutoModelForCausalLM.fromPretrained(source, { deviceMap: 'cpu', threads: 1 });
    const stepIds = expectedRows(name, 'step_input_ids');
    const inputIds = expectedRows(name, 'input_ids');
    using past = model.createPast({ sequences: 2, maxLength: inputIds[0].length + 4 });
    model.forward({ inputIds, past }).dispose();
    const steps: Float32Array[] = [];
    for (let step = 0; step < 4; step++)
      steps.push(await logitsOf(model, { inputIds: stepIds.map((ids) => [ids[step]]), past }));
    const vocab = steps[0].length / 2;
    const rows = [0, 1].flatMap((row) =>
      steps.flatMap((logits) => [...logits.subarray(row * vocab, (row + 1) * vocab)]),
    );
    expectClose(Float32Array.from(rows), name, 'logits_step');
  });
});

it('is the same model from shards and from one file', async () => {
  await using sharded = await load('llama-sharded');
  const folder = await temporary('single');
  const files = await sharded.savePretrained(folder);
  expect(files.filter((file) => file.endsWith('.safetensors'))).toEqual(['model.safetensors']);
  await using single = await AutoModelForCausalLM.fromPretrained(folder, { threads: 1 });
  const again = await temporary('again');
  const shards = await single.savePretrained(again, { maxShardSize: '100KB' });
  expect(shards.filter((file) => file.endsWith('.safetensors')).length).toBeGreaterThan(3);
  await using resharded = await AutoModelForCausalLM.fromPretrained(again, { threads: 1 });
  const input = { inputIds: expectedRows('llama-sharded', 'input_ids') };
  const logits = await logitsOf(sharded, input);
  expect(await logitsOf(single, input)).toEqual(logits);
  expect(await logitsOf(resharded, input)).toEqual(logits);
});

describe.each(['llama', 'opt'])('positionIds of %s', (name) => {
  const [row] = expectedRows(name, 'input_ids');
  const positions = row.map((_, i) => i);

  it('are the places of the tokens where they are not given', async () => {
    await using model = await load(name);
    const plain = await logitsOf(model, { inputIds: [row] });
    const given = await logitsOf(model, { inputIds: [row], positionIds: [positions] });
    expect(Math.max(...given.map((value, i) => Math.abs(value - plain[i])))).toBeLessThan(1e-5);
  });

  it('move what the model computes, not where keys are kept', async () => {
    await using model = await load(name);
    const shifted = [positions.map((position) => position + 20)];
    const plain = await logitsOf(model, { inputIds: [row] });
    const moved = await logitsOf(model, { inputIds: [row], positionIds: shifted });
    const difference = Math.max(...moved.map((value, i) => Math.abs(value - plain[i])));
    // Rotary attention knows distances only; learned positions are part of the input.
    if (name === 'llama') expect(difference).toBeLessThan(1e-4);
    else expect(difference).toBeGreaterThan(0.1);
    using past = model.createPast({ sequences: 1, maxLength: row.length });
    const [first, rest] = [row.slice(0, 5), row.slice(5)];
    model.forward({ inputIds: [first], positionIds: [shifted[0].slice(0, 5)], past }).dispose();
    const behind = await logitsOf(model, { inputIds: [rest], positionIds: [shifted[0].slice(5)], past });
    const wanted = moved.slice(-behind.length);
    expect(Math.max(...behind.map((value, i) => Math.abs(value - wanted[i])))).toBeLessThan(1e-5);
  });
});

describe('the head of gpt_neox, which files call embed_out', () => {
  const input = { inputIds: expectedRows('gpt_neox', 'input_ids') };
  const tensorsOf = async (folder: string) => {
    const bytes = await readFile(join(folder, 'model.safetensors'));
    return JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE(0))).toString()) as object;
  };

  it('is saved under that name, byte for byte, and quantized as well', async () => {
    await using model = await load('gpt_neox');
    const logits = await logitsOf(model, input);
    const folder = await temporary('saved');
    await model.savePretrained(folder);
    const source = await unpackCheckpoint('gpt_neox', await temporary('source'));
    const saved = await readFile(join(folder, 'model.safetensors'));
    expect(saved.equals(await readFile(join(source, 'model.safetensors')))).toBe(true);
    await using quantized = await AutoModelForCausalLM.fromPretrained(folder, { threads: 1, loadIn4bit: true });
    const again = await temporary('nf4');
    await quantized.savePretrained(again);
    expect(Object.keys(await tensorsOf(again))).toEqual(expect.arrayContaining(['embed_out.weight']));
    await using back = await AutoModelForCausalLM.fromPretrained(again, { threads: 1 });
    expect(await logitsOf(back, input)).toEqual(await logitsOf(quantized, input));
    expect(model.warnings).toEqual([]);
    expect(logits.length).toBeGreaterThan(0);
  });
});
