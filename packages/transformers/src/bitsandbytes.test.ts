// Checkpoints that bitsandbytes quantized on a GPU: logits, greedy tokens, footprint, saving, and quantizing while
// loading.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '@q/loader';
import { decodeBytes } from '@q/tensor';
import { AutoModelForCausalLM, BitsAndBytesConfig, type CausalModel, type LoadModelOptions } from './index.js';
import {
  checkpointFiles,
  compareLogits,
  expectedLogits,
  expectedNumber,
  expectedRows,
  temporaryFolders,
  unpackCheckpoint,
} from './testing.js';

const temporary = temporaryFolders();
const inputIds = expectedRows('bnb', 'input_ids');

async function load(variant: string, options: LoadModelOptions = {}): Promise<CausalModel> {
  return AutoModelForCausalLM.fromPretrained(await unpackCheckpoint(`bnb-${variant}`, await temporary(variant)), {
    threads: 1,
    ...options,
  });
}

async function logitsOf(model: CausalModel): Promise<Float32Array> {
  using output = model.forward({ inputIds });
  return (await output.logits.data()) as Float32Array;
}

// nf4 and fp4 were computed in float32, the others in 16 bits, and Q's fused operators compute in float32 on the CPU.
// - nested: weights, activations and the sum after every layer are rounded to bfloat16 (half a unit is 2^-9 relative).
//   About 20 roundings lie one behind the other in 2 layers and add up as a random walk, sqrt(20) 2^-9 = 0.9 %; as much
//   again from the operands of each product.
// - int8: rounding the activations to 8 bits is a step function. Where float16 falls on the other side of a step, an
//   activation changes by 1/127 of its row's absmax. Changing the inputs of the products by 1e-5 relative moves these
//   logits by 1.5 % (int8) and 0.9 % (int8-skip), by float16's 2^-11: by
//   3.0 % and 1.8 %. The products themselves are compared with bitsandbytes at 2e-3 in the goldens of @q/tensor. Python
//   decides outlier columns over the whole batch, Q row by row.
// With eager numerics Q rounds where Python does. What is left: sums in another order, whose result falls to the
// neighbouring 16-bit value now and then (one unit is 2^-10 or 2^-7, so 3e-3 for bfloat16 is a few such steps), and
// values half way between two int8 codes, which bitsandbytes decides by the last bit of a GPU's approximate division: 2
// of the 48 positions, by 0.9 % and less.
const variants = [
  { variant: 'nf4', bound: 1e-3, eager: 1e-5 },
  { variant: 'fp4', bound: 1e-3, eager: 1e-5 },
  { variant: 'nf4-nested-bf16', bound: 2e-2, eager: 5e-3 },
  { variant: 'int8', bound: 3.5e-2, eager: 3e-3 },
  { variant: 'int8-skip', bound: 3.5e-2, eager: 3e-3 },
];
// Variants whose arithmetic is that of Python give the same tokens. For the others a token may fall to a rival whose
// logit is nearer than what 16-bit arithmetic moves two logits (in the forward pass: 0.06 at most for bfloat16, 0.10
// for int8).
const rivals: Readonly<Record<string, number>> = {
  nf4: 0,
  fp4: 0,
  'nf4-nested-bf16': 0.12,
  int8: 0.25,
  'int8-skip': 0.25,
};

describe.each(variants)('$variant with eager numerics', ({ variant, eager }) => {
  it('gives the logits that Python gives', async () => {
    await using model = await load(variant, { numerics: 'eager' });
    const { relative } = compareLogits(await logitsOf(model), expectedLogits('bnb', `logits.${variant}`));
    expect(relative).toBeLessThan(eager);
  });

  it('generates the tokens that Python generates', async () => {
    await using model = await load(variant, { numerics: 'eager' });
    const [expected] = expectedRows('bnb', `greedy.${variant}`);
    const [prompt] = inputIds;
    const steps: number[] = [];
    for await (const { tokenId } of model.generate({
      inputIds: [prompt],
      maxNewTokens: expected.length - prompt.length,
      doSample: false,
    }))
      steps.push(tokenId);
    expect([...prompt, ...steps]).toEqual(expected);
  });
});

describe.each(variants)('$variant', ({ variant, bound }) => {
  it('gives the logits that Python gives', async () => {
    await using model = await load(variant);
    const { relative } = compareLogits(await logitsOf(model), expectedLogits('bnb', `logits.${variant}`));
    expect(relative).toBeLessThan(bound);
  });

  it('gives the greedy tokens that Python gives', async () => {
    await using model = await load(variant);
    const [expected] = expectedRows('bnb', `greedy.${variant}`);
    const [prompt] = inputIds;
    expect(expected.slice(0, prompt.length)).toEqual(prompt);
    if (rivals[variant] === 0) {
      const { sequences } = await model.generate({
        inputIds: [prompt],
        maxNewTokens: expected.length - prompt.length,
        doSample: false,
      });
      expect(sequences).toEqual([expected]);
    }
    using output = model.forward({ inputIds: [expected] });
    const values = (await output.logits.data()) as Float32Array;
    const vocab = values.length / expected.length;
    for (let position = prompt.length; position < expected.length; position++) {
      const row = values.subarray((position - 1) * vocab, position * vocab);
      const best = row.reduce((max, value) => Math.max(max, value), -Infinity);
      expect(best - row[expected[position]], `position ${position}`).toBeLessThanOrEqual(rivals[variant]);
    }
  });

  it('has the footprint that Python reports', async () => {
    await using model = await load(variant);
    expect(model.getMemoryFootprint()).toBe(expectedNumber('bnb', `footprint.${variant}`));
  });

  it('saves back the files that it was loaded from, byte for byte', async () => {
    await using model = await load(variant);
    const folder = await temporary('saved');
    await model.savePretrained(folder);
    const files = checkpointFiles(`bnb-${variant}`);
    expect((await readdir(folder)).sort()).toEqual(Object.keys(files).sort());
    for (const [name, bytes] of Object.entries(files)) {
      const saved = await readFile(join(folder, name));
      if (name.endsWith('.json')) expect(saved.toString()).toBe(bytes.toString());
      else expect(saved.equals(bytes), name).toBe(true);
    }
  });
});

async function tensorsOf(
  folder: string,
): Promise<Map<string, { dtype: string; shape: readonly number[]; bytes: Uint8Array }>> {
  await using checkpoint = await openCheckpoint(folder);
  const tensors = new Map<string, { dtype: string; shape: readonly number[]; bytes: Uint8Array }>();
  for (const [name, { dtype, shape }] of checkpoint.tensors)
    tensors.set(name, { dtype, shape, bytes: await checkpoint.read(name) });
  return tensors;
}

interface Recipe {
  readonly variant: string;
  readonly options: LoadModelOptions;
  readonly ties: number;
}

const fourBit: Recipe[] = [
  {
    variant: 'nf4',
    options: {
      torchDtype: 'float32',
      quantizationConfig: new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'nf4' }),
    },
    ties: 0,
  },
  { variant: 'fp4', options: { torchDtype: 'float32', loadIn4bit: true }, ties: 4 },
  {
    variant: 'nf4-nested-bf16',
    options: {
      torchDtype: 'bfloat16',
      quantizationConfig: new BitsAndBytesConfig({
        loadIn4bit: true,
        bnb4bitQuantType: 'nf4',
        bnb4bitUseDoubleQuant: true,
        bnb4bitComputeDtype: 'bfloat16',
      }),
    },
    ties: 0,
  },
];

const skipped = new BitsAndBytesConfig({
  loadIn8bit: true,
  llmInt8Threshold: 3,
  llmInt8SkipModules: ['lm_head', 'fc2', 'down_proj', 'dense_4h_to_h', 'wo'],
});

// bitsandbytes scales by 127 / absmax and 1 / absmax in the GPU's approximate division, which nothing but that GPU
// repeats: a weight that lies exactly between two codes may get the other one. `ties` counts all of them.
const eightBit: Recipe[] = [
  { variant: 'int8', options: { torchDtype: 'float16', loadIn8bit: true }, ties: 15 },
  { variant: 'int8-skip', options: { torchDtype: 'float16', quantizationConfig: skipped }, ties: 13 },
];

describe.each([...fourBit, ...eightBit])('quantizing fp16 to $variant while loading', ({ variant, options, ties }) => {
  it('gives the tensors and the config that Python saved', async () => {
    await using model = await load('fp16', options);
    const folder = await temporary('quantized');
    await model.savePretrained(folder);
    const actual = await tensorsOf(folder);
    const expected = await tensorsOf(await unpackCheckpoint(`bnb-${variant}`, await temporary(variant)));
    expect([...actual.keys()].sort()).toEqual([...expected.keys()].sort());
    let different = 0;
    for (const [name, tensor] of expected) {
      const { dtype, shape, bytes } = actual.get(name)!;
      expect({ name, dtype, shape }).toEqual({ name, dtype: tensor.dtype, shape: tensor.shape });
      if (ties > 0 && dtype === 'i8')
        different += differentTies(await denseRows(name), bytes, tensor.bytes, ({ value, largest }) =>
          Math.abs((((127 * value) / largest) % 1) - 0.5),
        );
      else if (ties > 0 && expected.has(`${name}.absmax`))
        different += differentTies(
          { ...(await denseRows(name)), width: 64 },
          nibbles(bytes),
          nibbles(tensor.bytes),
          fp4Tie,
        );
      else expect(Buffer.from(bytes).equals(tensor.bytes), name).toBe(true);
    }
    expect(different).toBe(ties);
    expect(await readFile(join(folder, 'config.json'), 'utf8')).toBe(
      checkpointFiles(`bnb-${variant}`)['config.json'].toString(),
    );
    expect(model.getMemoryFootprint()).toBe(expectedNumber('bnb', `footprint.${variant}`));
  });
});

/** The unquantized weight. */
async function denseRows(name: string): Promise<{ values: Float32Array; width: number }> {
  const { shape, bytes } = (await tensorsOf(await unpackCheckpoint('bnb-fp16', await temporary('dense')))).get(name)!;
  return { values: decodeBytes('f16', bytes) as Float32Array, width: shape[1] };
}

const nibbles = (bytes: Uint8Array): Uint8Array =>
  Uint8Array.from({ length: 2 * bytes.length }, (_, i) => (i % 2 === 0 ? bytes[i >> 1] >> 4 : bytes[i >> 1] & 15));

/** Distance of |value| / largest from the nearest midpoint of two fp4 magnitudes. */
const fp4Tie = ({ value, largest }: { value: number; largest: number }): number =>
  Math.min(...[1 / 384, 11 / 128, 5 / 24, 7 / 24, 5 / 12, 7 / 12, 5 / 6].map((cut) => Math.abs(value / largest - cut)));

/** Counts codes that differ; each must be a tie among its `width` neighbours. */
function differentTies(
  { values, width }: { values: Float32Array; width: number },
  actual: Uint8Array,
  expected: Uint8Array,
  distance: (tie: { value: number; largest: number }) => number,
): number {
  let count = 0;
  for (let i = 0; i < expected.length; i++) {
    if (actual[i] === expected[i]) continue;
    const group = values.subarray(i - (i % width), i - (i % width) + width);
    const largest = group.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    expect(distance({ value: Math.abs(values[i]), largest }), `element ${i}`).toBeLessThan(1e-5);
    count += 1;
  }
  return count;
}

it('gives the logits of the unquantized model', async () => {
  await using model = await load('fp16');
  const { largest, relative } = compareLogits(await logitsOf(model), expectedLogits('bnb', 'logits.fp32'));
  expect(relative).toBeLessThan(1e-3);
  expect(largest).toBeLessThan(1e-2);
});

// Other architectures; bounds as above, for the same reasons.
const others = ['bloom', 'opt'].flatMap((name) => [
  { name, variant: 'nf4-nested-bf16', bound: 2e-2 },
  { name, variant: 'int8', bound: 3.5e-2 },
]);

describe.each(others)('$name, $variant', ({ name, variant, bound }) => {
  const pack = `${name}.${variant}`;
  const rows = expectedRows(pack, 'input_ids');
  const loadIt = async () =>
    AutoModelForCausalLM.fromPretrained(await unpackCheckpoint(pack, await temporary(pack)), { threads: 1 });

  it('gives the logits and the greedy tokens that Python gives', async () => {
    await using model = await loadIt();
    using output = model.forward({ inputIds: rows });
    const logits = (await output.logits.data()) as Float32Array;
    expect(compareLogits(logits, expectedLogits(pack, `logits.${variant}`)).relative).toBeLessThan(bound);
    const [expected] = expectedRows(pack, `greedy.${variant}`);
    const maxNewTokens = expected.length - rows[0].length;
    const { sequences } = await model.generate({
      inputIds: [rows[0]],
      maxNewTokens,
      doSample: false,
      eosTokenId: null,
    });
    expect(sequences).toEqual([expected]);
  });

  it('has the footprint that Python reports, and saves back what it was loaded from', async () => {
    await using model = await loadIt();
    expect(model.getMemoryFootprint()).toBe(expectedNumber(pack, `footprint.${variant}`));
    const folder = await temporary('saved');
    await model.savePretrained(folder);
    for (const [file, bytes] of Object.entries(checkpointFiles(pack)))
      expect((await readFile(join(folder, file))).equals(bytes), file).toBe(true);
  });
});
