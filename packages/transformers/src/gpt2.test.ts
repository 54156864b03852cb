// What is particular to GPT-2: matrices that files keep [in, out], names without a prefix, scaled scores.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCheckpoint, SafetensorsWriter } from '@q/loader';
import { AutoModelForCausalLM, type CausalModel, type LoadModelOptions } from './index.js';
import { checkpointFiles, expectedRows, temporaryFolders, unpackCheckpoint } from './testing.js';

const temporary = temporaryFolders();
const source = checkpointFiles('gpt2')['model.safetensors'];
const [row] = expectedRows('gpt2', 'input_ids');
const unpack = async () => unpackCheckpoint('gpt2', await temporary('gpt2'));
const load = (folder: string, options: LoadModelOptions = {}) =>
  AutoModelForCausalLM.fromPretrained(folder, { deviceMap: 'cpu', threads: 1, ...options });

async function logitsOf(model: CausalModel): Promise<Float32Array> {
  using output = model.forward({ inputIds: [row] });
  return (await output.logits.data()) as Float32Array;
}

/** The weights that a folder has. Compared whole: an expectation would walk over half a million bytes. */
const weightsIn = (folder: string): Promise<Buffer> => readFile(join(folder, 'model.safetensors'));

async function savedBy(model: CausalModel, options: { maxShardSize?: string } = {}): Promise<string> {
  const folder = await temporary('saved');
  await model.savePretrained(folder, options);
  return folder;
}

/** The checkpoint as the hub has it: no `transformer.` in front, no head, masks among the weights. */
async function bare(): Promise<string> {
  const folder = await unpack();
  await using checkpoint = await openCheckpoint(folder);
  const out = await temporary('bare');
  for (const [file, bytes] of Object.entries(checkpointFiles('gpt2')))
    if (file.endsWith('.json')) await writeFile(join(out, file), bytes);
  const writer = new SafetensorsWriter(out);
  const entries = new Map([...checkpoint.tensors].map(([name, entry]) => [name.replace(/^transformer\./, ''), entry]));
  for (const [name, { dtype, shape }] of entries) writer.declare({ name, dtype, shape });
  for (const layer of [0, 1]) {
    writer.declare({ name: `h.${layer}.attn.bias`, dtype: 'f32', shape: [1, 1, 64, 64] });
    writer.declare({ name: `h.${layer}.attn.masked_bias`, dtype: 'f32', shape: [] });
  }
  await writer.write(async ({ name, shape }) =>
    entries.has(name) ? checkpoint.read(entries.get(name)!) : new Uint8Array(4 * shape.reduce((a, b) => a * b, 1)),
  );
  return out;
}

describe('saving', () => {
  it('gives the file back byte for byte, from one file, from shards, and from names without a prefix', async () => {
    await using model = await load(await unpack());
    expect(model.warnings).toEqual([]);
    expect(source.equals(await weightsIn(await savedBy(model)))).toBe(true);
    await using sharded = await load(await savedBy(model, { maxShardSize: '100KB' }));
    expect(source.equals(await weightsIn(await savedBy(sharded)))).toBe(true);
    await using hub = await load(await bare());
    expect(hub.warnings).toEqual([]);
    expect(source.equals(await weightsIn(await savedBy(hub)))).toBe(true);
    expect(await logitsOf(hub)).toEqual(await logitsOf(model));
  });

  it('keeps the layout in another dtype, and of weights that no file had', async () => {
    await using half = await load(await unpack(), { torchDtype: 'bfloat16' });
    await using again = await load(await savedBy(half));
    expect(await logitsOf(again)).toEqual(await logitsOf(half));
    await using dummy = await load(await unpack(), { loadFormat: 'dummy' });
    await using checkpoint = await openCheckpoint(await savedBy(dummy));
    expect(checkpoint.tensor('transformer.h.0.mlp.c_fc.weight').shape).toEqual([64, 256]);
  });
});

describe.each([
  ['fp4', { loadIn4bit: true }],
  ['int8', { loadIn8bit: true }],
] as const)('quantized: %s', (format, options) => {
  it('takes all matrices but the head, [out, in] in files as in Python, and loads again to the same bytes', async () => {
    await using model = await load(await unpack(), options);
    expect(model.summary().linears).toEqual({ [format]: 8, dense: 1 });
    const folder = await savedBy(model);
    await using checkpoint = await openCheckpoint(folder);
    if (format === 'int8') expect(checkpoint.tensor('transformer.h.0.mlp.c_fc.weight').shape).toEqual([256, 64]);
    else {
      const state = 'transformer.h.0.mlp.c_fc.weight.quant_state.bitsandbytes__fp4';
      expect(Buffer.from(await checkpoint.read(state)).toString()).toContain('"shape": [256, 64]');
    }
    await using again = await load(folder);
    expect(again.warnings).toEqual([]);
    expect(await logitsOf(again)).toEqual(await logitsOf(model));
    expect((await weightsIn(folder)).equals(await weightsIn(await savedBy(again)))).toBe(true);
  });
});

describe('settings', () => {
  // Of transformers 5.17 on these weights: the last token's first logits.
  it.each([
    [{ scale_attn_weights: false }, [-0.067942, 0.577742, 0.141712, 0.711786, 0.396527, -2.130507]],
    [{ scale_attn_by_inverse_layer_idx: true }, [-0.942694, -1.064547, 0.76628, 1.044419, -0.307073, -2.306014]],
    [{ reorder_and_upcast_attn: true }, [-1.041414, -1.209571, 0.920708, 1.016825, -0.380216, -2.25841]],
    [{ activation_function: 'relu' }, [-0.853188, -1.252784, 1.108943, 0.72759, -0.848384, -2.274042]],
  ])('%j', async (change, wanted) => {
    const folder = await unpack();
    const path = join(folder, 'config.json');
    await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, 'utf8')), ...change }));
    await using model = await load(folder);
    const logits = await logitsOf(model);
    const last = logits.subarray(logits.length - logits.length / row.length);
    wanted.forEach((value, i) => expect(Math.abs(last[i] - value)).toBeLessThan(1e-5));
  });
});
