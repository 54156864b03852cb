// Parameters that files keep otherwise than the model: turned, as a part of a tensor, or in a stack. Read and saved.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CheckpointError, UnsupportedError } from '@q/config';
import { disposeWeight, type DType, type ParameterSlot, type Source, type Tensor, type Weight } from '@q/tensor';
import { openCheckpoint } from '../checkpoint.js';
import { loadParameters, type LoadOptions } from './load.js';
import { matchNames } from './match-names.js';
import { quantizerFor } from './quantize.js';
import { storedTensors } from './save.js';
import { partOf, placeOf, wholeShape } from './sources.js';
import { surveyWeights } from './survey.js';
import { backend, int8, nf4, pattern, saved, withFloat, write, type Stored } from './testing.js';

interface Place {
  readonly shape: readonly number[];
  readonly sources?: readonly Source[];
}

/** Slots that keep what they are given; matrices are linear layers. */
function modelOf(places: Readonly<Record<string, Place>>) {
  const weights = new Map<string, Weight>();
  const tensors = new Map<string, Tensor>();
  const slots = Object.entries(places).map(([name, { shape, sources }]): ParameterSlot => {
    if (shape.length !== 2)
      return {
        kind: 'tensor',
        name,
        shape,
        sources,
        load: (tensor) => void tensors.set(name, tensor.keep()),
        current: () => tensors.get(name)!,
      };
    const load = (weight: Weight) => void weights.set(name, weight);
    const [n, k] = shape;
    const module = name.replace(/\.weight$/, '');
    return { kind: 'linear', name, module, shape: [n, k], sources, load, current: () => weights.get(name)! };
  });
  const valuesOf = async (name: string): Promise<number[]> => {
    const weight = weights.get(name);
    const tensor = weight?.kind === 'dense' ? weight.values : tensors.get(name)!;
    return Array.from(await tensor.data(), Number);
  };
  const dispose = () => {
    for (const weight of weights.values()) disposeWeight(weight);
    for (const tensor of tensors.values()) tensor.dispose();
  };
  return { slots, weights, valuesOf, dispose };
}

const stored = (name: string, shape: readonly number[], dtype: DType = 'f32'): Stored => {
  const bytes = pattern(name, shape);
  const half = () => Uint8Array.from(bytes.filter((_, i) => i % 4 > 1)); // the upper halves of f32 are bf16
  return { dtype, shape, bytes: dtype === 'f32' ? bytes : half() };
};

const experts = [0, 1, 2];
const gateUp = (index: number, start: number, transposed: boolean): Source[] => [
  { name: `mlp.gate_up${transposed ? '' : '_bias'}`, index, transposed, rows: { start, step: 2 } },
];
/** GPT-OSS' experts, a fused qkv, GPT-2's matrix, a stack of whole matrices, and a vector as it is. */
const places: Record<string, Place> = {
  'model.norm.weight': { shape: [8] },
  ...Object.fromEntries(
    experts.flatMap((e): [string, Place][] => [
      [`model.${e}.gate.weight`, { shape: [6, 8], sources: gateUp(e, 0, true) }],
      [`model.${e}.gate.bias`, { shape: [6], sources: gateUp(e, 0, false) }],
      [`model.${e}.up.weight`, { shape: [6, 8], sources: gateUp(e, 1, true) }],
      [`model.${e}.up.bias`, { shape: [6], sources: gateUp(e, 1, false) }],
      [`model.${e}.down.weight`, { shape: [8, 6], sources: [{ name: 'mlp.down', index: e, transposed: true }] }],
      [`model.${e}.whole.weight`, { shape: [4, 8], sources: [{ name: 'mlp.whole', index: e }] }],
    ]),
  ),
  'model.q.weight': { shape: [8, 8], sources: [{ name: 'qkv.weight', rows: { start: 0 } }] },
  'model.k.weight': { shape: [4, 8], sources: [{ name: 'qkv.weight', rows: { start: 8 } }] },
  'model.v.weight': { shape: [4, 8], sources: [{ name: 'qkv.weight', rows: { start: 12 } }] },
  'model.k.bias': { shape: [4], sources: [{ name: 'qkv.bias', rows: { start: 8 } }] },
  'model.v.bias': { shape: [4], sources: [{ name: 'qkv.bias', rows: { start: 12 } }] },
  'model.q.bias': { shape: [8], sources: [{ name: 'qkv.bias', rows: { start: 0 } }] },
  'model.fc.weight': { shape: [10, 8], sources: [{ name: 'fc.weight', transposed: true }] },
};
const shapes: Record<string, readonly number[]> = {
  'model.norm.weight': [8],
  'mlp.gate_up': [3, 8, 12],
  'mlp.gate_up_bias': [3, 12],
  'mlp.down': [3, 6, 8],
  'mlp.whole': [3, 4, 8],
  'qkv.weight': [16, 8],
  'qkv.bias': [16],
  'fc.weight': [8, 10],
};
const contentsIn = (dtype: DType): Record<string, Stored> =>
  Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, stored(name, shape, dtype)]));

/** The values of a tensor on disk, as numbers. */
function numbers({ bytes, dtype }: Stored): number[] {
  if (dtype === 'f32') return [...new Float32Array(Uint8Array.from(bytes).buffer)];
  const wide = Uint32Array.from(new Uint16Array(Uint8Array.from(bytes).buffer), (bits) => bits << 16);
  return [...new Float32Array(wide.buffer)];
}

/** What a place must hold, by the plainest loops. */
function wanted({ shape, sources }: Place, contents: Record<string, Stored>, parameter: string): number[] {
  const [{ name, index = 0, transposed, rows = { start: 0 } }] = sources ?? [{ name: parameter } as Source];
  const whole = contents[name].shape;
  const matrix = sources?.[0].index === undefined ? whole : whole.slice(1);
  const values = numbers(contents[name]).slice(index * matrix.reduce((a, b) => a * b, 1));
  const [n, k = 1] = shape;
  return Array.from({ length: n * k }, (_, i) => {
    const [row, column] = [rows.start + Math.floor(i / k) * (rows.step ?? 1), i % k];
    return values[transposed ? column * matrix[1] + row : row * k + column];
  });
}

describe.each(['f32', 'bf16'] as const)('%s', (dtype) => {
  const contents = contentsIn(dtype);

  it.each([{}, { maxShardSize: 600 }])('parts are read, and saved byte for byte: %j', async (options) => {
    const device = backend();
    const model = modelOf(places);
    await using checkpoint = await openCheckpoint(await write(contents, options));
    expect(checkpoint.files.length > 1).toBe('maxShardSize' in options);
    const lines: string[] = [];
    const { slots } = await loadParameters(checkpoint, model.slots, {
      backend: device,
      checkFinite: true,
      onWarning: (line) => void lines.push(line),
    });
    expect(lines).toEqual([]);
    for (const [name, place] of Object.entries(places))
      expect(await model.valuesOf(name), name).toEqual(wanted(place, contents, name));
    expect(await saved(slots)).toEqual(contents);
    model.dispose();
    expect(device.memory().usedBytes).toBe(0);
  });
});

it('a cast on the way, and progress, count each byte of the files once', async () => {
  const device = backend();
  const model = modelOf(places);
  const contents = contentsIn('f32');
  await using checkpoint = await openCheckpoint(await write(contents));
  let read = 0;
  await loadParameters(checkpoint, model.slots, {
    backend: device,
    dtype: 'bf16',
    onProgress: ({ bytes }) => void (read = bytes),
  });
  expect(read).toBe(checkpoint.dataBytes);
  const gate = 'model.1.gate.weight';
  const rounded = wanted(places[gate], contents, gate);
  (await model.valuesOf(gate)).forEach((value, i) => expect(Math.abs(value - rounded[i])).toBeLessThan(2 ** -8));
  model.dispose();
});

it('a part that lies in one piece is read where it is', async () => {
  await using checkpoint = await openCheckpoint(await write(contentsIn('f32')));
  for (const [name, { shape, sources }] of Object.entries(places)) {
    if (!sources) continue;
    const whole = checkpoint.tensor(sources[0].name);
    const { strides, bytes, offset } = partOf(whole, sources[0], shape);
    expect(strides === undefined, name).toBe(!/gate|up|down|fc/.test(name));
    expect(bytes).toBe(4 * shape.reduce((a, b) => a * b, 1));
    expect(offset).toBeGreaterThanOrEqual(whole.offset);
  }
});

/** Survey of a changed checkpoint; it never gets to reading. */
async function surveyError(
  change: (contents: Record<string, Stored>) => void,
  from = places,
): Promise<CheckpointError> {
  const contents = contentsIn('f32');
  change(contents);
  await using checkpoint = await openCheckpoint(await write(contents));
  const error: unknown = await surveyWeights(checkpoint, modelOf(from).slots).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(CheckpointError);
  return error as CheckpointError;
}

describe('a tensor that does not fit its parts is named with both shapes', () => {
  it.each([
    ['mlp.gate_up', [2, 8, 12]],
    ['mlp.gate_up', [4, 8, 12]],
    ['mlp.gate_up', [3, 12, 8]],
    ['mlp.gate_up', [3, 8, 11]],
    ['mlp.gate_up', [24, 12]],
    ['mlp.gate_up', []],
    ['mlp.gate_up', [0, 8, 12]],
    ['mlp.gate_up_bias', [3, 6, 2]],
    ['mlp.whole', [3, 8, 4]],
    ['qkv.weight', [15, 8]],
    ['qkv.weight', [17, 8]],
    ['qkv.bias', [16, 1]],
    ['fc.weight', [10, 8]],
  ])('%s %j', async (name, shape) => {
    const { message } = await surveyError((contents) => void (contents[name] = stored(name, shape)));
    const line = `${name} is [${shape.join()}], by config.json [${shapes[name].join()}]`;
    expect(message).toContain(line);
    expect(message.split(' is [').length, 'once, not for each parameter').toBe(2);
  });

  it('one that is missing is named once', async () => {
    const { message } = await surveyError((contents) => void delete contents['mlp.gate_up']);
    expect(message).toContain('lacks 1 of 8 tensors: mlp.gate_up (');
  });

  it('a number that is none is told with its part', async () => {
    const contents = contentsIn('f32');
    contents['mlp.gate_up'] = { ...contents['mlp.gate_up'], bytes: withFloat(contents['mlp.gate_up'].bytes, 97, NaN) };
    for (const options of [{ checkFinite: true }, { quantizer: quantizerFor(int8, []) }]) {
      const model = modelOf(places);
      await using checkpoint = await openCheckpoint(await write(contents));
      const loading = loadParameters(checkpoint, model.slots, { backend: backend(), ...options });
      await expect(loading).rejects.toThrow(
        /model\.safetensors, tensor mlp\.gate_up, part 1 of the stack, rows from 1 in steps of 2, transposed/,
      );
      model.dispose();
    }
  });

  it('parts that overlap or leave something out are refused', () => {
    const part = (parameter: string, shape: number[], source: Omit<Source, 'name'>) => ({
      parameter,
      shape,
      source: { name: 'whole', ...source },
    });
    const refused = [
      [part('a', [4, 8], { rows: { start: 0 } }), part('b', [4, 8], { rows: { start: 3 } })],
      [part('a', [4, 8], { rows: { start: 0 } }), part('b', [4, 8], { rows: { start: 5 } })],
      [part('a', [4, 8], { rows: { start: 0, step: 2 } }), part('b', [4, 8], { rows: { start: 2, step: 2 } })],
      [part('a', [4, 8], {}), part('b', [4, 8], {})],
      [part('a', [4, 8], { index: 0 }), part('b', [4, 8], { index: 2 })],
      [part('a', [4, 8], { index: 0 }), part('b', [4, 6], { index: 1 })],
      [part('a', [4, 8], { index: 0 }), part('b', [4, 8], { rows: { start: 0 } })],
      [part('a', [4, 8], { index: 0 }), part('b', [4, 8], { index: 1, transposed: true })],
      [part('a', [4], { transposed: true })],
      [part('a', [4, 8], { rows: { start: 1 } })],
    ];
    for (const parts of refused) {
      expect(() => wholeShape('whole', parts)).toThrow(CheckpointError);
      expect(() => wholeShape('whole', parts)).toThrow(/tensor whole, parameters a/);
    }
  });
});

describe('several places', () => {
  const either: Record<string, Place> = Object.fromEntries(
    experts.map((e) => [
      `model.${e}.w.weight`,
      { shape: [4, 8], sources: [{ name: `model.${e}.w.weight` }, { name: 'model.stack', index: e }] },
    ]),
  );
  const apart = Object.fromEntries(Object.keys(either).map((name) => [name, stored(name, [4, 8])]));
  const stack = { 'model.stack': stored('model.stack', [3, 4, 8]) };

  it.each([
    ['experts apart', apart],
    ['a stack of them', stack],
  ])('%s: are found, and saved as they were', async (_, contents) => {
    const model = modelOf(either);
    await using checkpoint = await openCheckpoint(await write(contents));
    const { slots } = await loadParameters(checkpoint, model.slots, { backend: backend() });
    expect(await saved(slots)).toEqual(contents);
    model.dispose();
  });

  it('under a wrapper and without the prefix as well', () => {
    const info = (shape: readonly number[]) => ({ shape, dtype: 'f32', file: 'w.safetensors' });
    const { slots } = modelOf(either);
    for (const prefix of ['', 'module.model.', 'transformer.model.']) {
      const tensors = new Map([[`${prefix}stack`, info([3, 4, 8])]]);
      const { stored: found, saved: kept } = matchNames({ tensors, slots, folder: 'folder' });
      expect([...found.values()]).toEqual(experts.map((index) => ({ name: `${prefix}stack`, index })));
      expect([...kept.values()]).toEqual(experts.map((index) => ({ name: 'model.stack', index })));
    }
  });

  it('some here and some there are refused', async () => {
    await using checkpoint = await openCheckpoint(
      await write({ ...stack, 'model.0.w.weight': apart['model.0.w.weight'] }),
    );
    await expect(surveyWeights(checkpoint, modelOf(either).slots)).rejects.toThrow(
      /do not make it up.*model\.stack.*of 3 in the stack 1 belong to no parameter/,
    );
  });
});

describe('quantized', () => {
  const turned = { 'model.fc.weight': { shape: [16, 64], sources: [{ name: 'fc.weight', transposed: true }] } };
  const stacked = { 'model.0.w.weight': { shape: [16, 64], sources: [{ name: 'stack.weight', index: 0 }] } };

  async function load(contents: Record<string, Stored>, from: Record<string, Place>, options: Partial<LoadOptions>) {
    const model = modelOf(from);
    models.push(model);
    await using checkpoint = await openCheckpoint(await write(contents));
    return { model, ...(await loadParameters(checkpoint, model.slots, { backend: backend(), ...options })) };
  }
  let models: { dispose: () => void }[];
  beforeAll(() => void (models = []));
  afterAll(() => models.forEach((model) => model.dispose()));

  it.each([
    ['nf4', nf4],
    ['int8', int8],
  ])('%s: a turned weight is stored [out, in], as bitsandbytes has it, and read so', async (_, config) => {
    const dense = { 'fc.weight': stored('fc.weight', [64, 16]) };
    const { slots } = await load(dense, turned, { quantizer: quantizerFor(config, []) });
    const contents = await saved(slots);
    const straight = { 'fc.weight': { shape: [16, 64], sources: [{ name: 'fc.weight' }] } };
    const bytes = Buffer.alloc(4096);
    for (let i = 0; i < 1024; i++)
      dense['fc.weight'].bytes
        .slice((i % 64) * 64 + (i >> 6) * 4)
        .slice(0, 4)
        .forEach((byte, j) => (bytes[4 * i + j] = byte));
    const other = await load({ 'fc.weight': { dtype: 'f32', shape: [16, 64], bytes } }, straight, {
      quantizer: quantizerFor(config, []),
    });
    expect(contents).toEqual(await saved(other.slots));
    const again = await load(contents, turned, { stored: config });
    expect(await saved(again.slots)).toEqual(contents);
    expect(again.quantization?.quantizationMethod()).toBe(config.quantizationMethod());
  });

  it('one of a stack is quantized, and refused by saving before anything is written', async () => {
    const dense = { 'stack.weight': stored('stack.weight', [1, 16, 64]) };
    const { slots, model } = await load(dense, stacked, { quantizer: quantizerFor(nf4, []) });
    expect(model.weights.get('model.0.w.weight')!.kind).toBe('bnb4');
    await expect(storedTensors(slots)).rejects.toThrow(UnsupportedError);
    await expect(storedTensors(slots)).rejects.toThrow(/model\.0\.w\.weight is quantized.*tensor stack\.weight/);
  });

  it('a stack that is quantized on disk is refused', async () => {
    const contents = {
      'stack.weight': stored('stack.weight', [1, 16, 64]),
      'stack.weight.absmax': stored('absmax', [16]),
    };
    await expect(load(contents, stacked, {})).rejects.toThrow(/a quantized tensor holds several.*tensor stack\.weight/);
  });

  it('parts of one tensor in two dtypes cannot be saved', async () => {
    const pair = {
      'a.bias': { shape: [4], sources: [{ name: 'ab.bias', rows: { start: 0 } }] },
      'b.bias': { shape: [4], sources: [{ name: 'ab.bias', rows: { start: 4 } }] },
    };
    const { slots } = await load({ 'ab.bias': stored('ab.bias', [8]) }, pair, {});
    const half = await load({ 'ab.bias': stored('ab.bias', [8], 'bf16') }, pair, {});
    await expect(storedTensors([slots[0], half.slots[1]])).rejects.toThrow(/two dtypes.*ab\.bias.*f32.*bf16/);
  });
});

it('a place is counted in elements past 2^31', () => {
  const source = { name: 'w', index: 127, transposed: true, rows: { start: 1, step: 2 } };
  expect(placeOf(source, [128, 2880, 5760])).toEqual({ start: 127 * 2880 * 5760 + 1, strides: [2, 5760] });
});
