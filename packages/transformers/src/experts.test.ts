// Models with routed experts whose weights are quantized while loading, one matrix each: beside the same weights made
// dense again, and saved and read back.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openCheckpoint } from '@q/loader';
import { denseWeight, formatOf, weightLabel, type ParameterSlot } from '@q/tensor';
import { describe, expect, it } from 'vitest';
import { AutoModelForCausalLM, BitsAndBytesConfig, type CausalModel } from './index.js';
import { expectedRows, temporaryFolders, unpackCheckpoint } from './testing.js';

const temporary = temporaryFolders();

const configs = {
  nf4: new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'nf4', bnb4bitComputeDtype: 'float32' }),
  'nf4 nested': new BitsAndBytesConfig({
    loadIn4bit: true,
    bnb4bitQuantType: 'nf4',
    bnb4bitUseDoubleQuant: true,
    bnb4bitComputeDtype: 'float32',
  }),
  int8: new BitsAndBytesConfig({ loadIn8bit: true }),
};

const slotsOf = (model: CausalModel): readonly ParameterSlot[] =>
  (model as unknown as { parts: { slots: readonly ParameterSlot[] } }).parts.slots;

/** Gives every linear layer the values of its weight, in float32. */
function makeDense(model: CausalModel): void {
  for (const slot of slotsOf(model)) {
    if (slot.kind !== 'linear') continue;
    const weight = slot.current();
    const values = formatOf(weight).values(weight, 'f32');
    slot.load(denseWeight(values.keep()));
  }
}

async function logitsOf(model: CausalModel, inputIds: readonly (readonly number[])[]): Promise<Float32Array> {
  using output = model.forward({ inputIds });
  return (await output.logits.data()) as Float32Array;
}

/** Relative error of the middle row, of rows in the order of their errors. */
function relative(actual: Float32Array, expected: Float32Array, rows: number): number {
  const width = actual.length / rows;
  const norm = (values: Float32Array) => Math.hypot(...values);
  const errors = Array.from({ length: rows }, (_, row) => {
    const [got, want] = [actual, expected].map((all) => all.subarray(row * width, (row + 1) * width));
    return norm(got.map((value, i) => value - want[i])) / norm(want);
  });
  return errors.sort((a, b) => a - b)[rows >> 1];
}

// 4 bits: products in float32 of the same values, in another order. int8: rows of x are rounded to 8 bits before each
// of some 15 products in a row, by 0.4 % of their values each; where that turns the choice of an expert a row is
// another one, so that the middle row is compared.
const cases = ['deepseek_v3', 'gpt_oss', 'mixtral', 'qwen2_moe', 'qwen3_moe'].flatMap((name) =>
  (
    [
      ['nf4', 'nf4', 1e-5],
      ['nf4 nested', 'nf4', 1e-5],
      ['int8', 'int8', 3.5e-2],
    ] as const
  ).map(([format, label, bound]) => ({ name, format, label, bound })),
);

describe.each(cases)('$name, $format', ({ name, format, label, bound }) => {
  const load = async () => {
    const folder = await unpackCheckpoint(name, await temporary(name));
    return AutoModelForCausalLM.fromPretrained(folder, {
      threads: 1,
      torchDtype: 'float32',
      quantizationConfig: configs[format],
    });
  };
  const inputIds = [expectedRows(name, 'input_ids')[0]];

  it('quantizes each matrix of an expert by itself, and computes what its values give', async () => {
    await using model = await load();
    await using dense = await load();
    makeDense(dense);
    const experts = slotsOf(model).filter((slot) => slot.kind === 'linear' && /\.experts\.\d+\./.test(slot.name));
    expect(experts.length % 3).toBe(0);
    for (const slot of experts) expect(slot.kind === 'linear' && weightLabel(slot.current()), slot.name).toBe(label);
    const [got, want] = [await logitsOf(model, inputIds), await logitsOf(dense, inputIds)];
    expect(relative(got, want, inputIds[0].length)).toBeLessThan(bound);
  });

  it('generates in recorded steps what whole passes give', async () => {
    await using model = await load();
    const { sequences } = await model.generate({ inputIds, maxNewTokens: 6, doSample: false, eosTokenId: null }); // prettier-ignore
    const logits = await logitsOf(model, sequences);
    const vocab = logits.length / sequences[0].length;
    const best = (row: Float32Array) => row.indexOf(row.reduce((max, value) => Math.max(max, value), -Infinity));
    const greedy = sequences[0].map((_, i) => best(logits.subarray(i * vocab, (i + 1) * vocab)));
    expect(sequences[0].slice(inputIds[0].length)).toEqual(greedy.slice(inputIds[0].length - 1, -1));
  });

  if (name === 'gpt_oss') {
    it('is not saved: its files keep the experts in stacks, of which none can be quantized', async () => {
      await using model = await load();
      await expect(model.savePretrained(await temporary('saved'))).rejects.toThrow(/is quantized, and files keep it/);
    });
    return;
  }

  it('is saved under the names of its files, and read back', async () => {
    await using model = await load();
    const folder = await temporary('saved');
    await model.savePretrained(folder);
    await using again = await AutoModelForCausalLM.fromPretrained(folder, { threads: 1 });
    expect(again.warnings).toEqual([]);
    expect(again.summary()).toEqual(model.summary());
    expect(await logitsOf(again, inputIds)).toEqual(await logitsOf(model, inputIds));
    await using checkpoint = await openCheckpoint(folder);
    const names = [...checkpoint.tensors.keys()];
    const own = name === 'mixtral' ? 'block_sparse_moe.experts.1.w3.weight' : 'mlp.experts.1.up_proj.weight';
    expect(names.filter((tensor) => tensor.endsWith(own))).not.toEqual([]);
    expect((await readFile(join(folder, 'config.json'), 'utf8')).includes('quantization_config')).toBe(true);
  });
});
