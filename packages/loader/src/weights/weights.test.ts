// Loading and saving on the reference backend: every way in which files and model can disagree, and what is left
// afterwards.
import { readFile, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { BitsAndBytesConfig, CheckpointError, ConfigError, DisposedError } from '@q/config';
import {
  dequantizeBnb4,
  disposeWeight,
  referenceBackend,
  type Backend,
  type DType,
  type ParameterSlot,
  type Tensor,
  type Weight,
} from '@q/tensor';
import { openCheckpoint, type Checkpoint } from '../checkpoint.js';
import { temporary } from '../testing.js';
import { SafetensorsWriter } from '../write/writer.js';
import { loadDummy } from './dummy.js';
import { loadParameters, type LoadOptions, type LoadProgress } from './load.js';
import { quantizerFor } from './quantize.js';
import { storedTensors } from './save.js';

const temp = temporary();
let folders = 0;
const backends: Backend[] = [];
afterEach(async () => {
  for (const backend of backends.splice(0)) await backend.close();
});

const linears: Record<string, readonly [number, number]> = { a: [16, 64], 'deep.b': [6, 128], head: [10, 64] };
const tensors: Record<string, readonly number[]> = { 'embed.weight': [10, 64], 'norm.weight': [64], 'a.bias': [16] };

/** The places of a small model, and what was put there. */
function emptyModel({ tied = false } = {}): {
  slots: ParameterSlot[];
  weights: Map<string, Weight>;
  dense: Map<string, Tensor>;
  dispose: () => void;
} {
  const weights = new Map<string, Weight>();
  const dense = new Map<string, Tensor>();
  const shared = new Set<string>();
  const slots: ParameterSlot[] = [
    ...Object.entries(tensors).map(([name, shape]): ParameterSlot => ({
      kind: 'tensor',
      name,
      shape,
      load: (tensor) => void dense.set(name, tensor.keep()),
      current: () => dense.get(name)!,
    })),
    ...Object.entries(linears).map(([module, shape]): ParameterSlot => ({
      kind: 'linear',
      module,
      name: `${module}.weight`,
      shape,
      tiedTo: tied && module === 'head' ? 'embed.weight' : undefined,
      load: (weight, options) => {
        weights.set(module, weight);
        if (options?.shared) shared.add(module);
      },
      current: () => weights.get(module)!,
    })),
  ];
  const dispose = () => {
    for (const [module, weight] of weights) if (!shared.has(module)) disposeWeight(weight);
    for (const tensor of dense.values()) tensor.dispose();
  };
  return { slots, weights, dense, dispose };
}

const allShapes = (): Record<string, readonly number[]> => ({
  ...tensors,
  ...Object.fromEntries(Object.entries(linears).map(([module, shape]) => [`${module}.weight`, shape])),
});

/** Bytes that are a plain pattern of small finite numbers in f32. */
function pattern(name: string, shape: readonly number[]): Uint8Array {
  const count = shape.reduce((a, b) => a * b, 1);
  return new Uint8Array(
    Float32Array.from({ length: count }, (_, i) => ((i * 37 + name.length * 11) % 101) / 50 - 1).buffer,
  );
}

interface Stored {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

async function write(
  contents: Readonly<Record<string, Stored>>,
  options: { maxShardSize?: number } = {},
): Promise<string> {
  const folder = await temp.sub(`weights-${folders++}`);
  const writer = new SafetensorsWriter(folder, options);
  for (const [name, { dtype, shape }] of Object.entries(contents)) writer.declare({ name, dtype, shape });
  await writer.write(async ({ name }) => contents[name].bytes);
  return folder;
}

const denseContents = (): Record<string, Stored> =>
  Object.fromEntries(
    Object.entries(allShapes()).map(([name, shape]) => [
      name,
      { dtype: 'f32' as const, shape, bytes: pattern(name, shape) },
    ]),
  );

function backend(): Backend {
  const made = referenceBackend();
  backends.push(made);
  return made;
}

/** What the checkpoint of `save` of a loaded model holds. */
async function saved(slots: readonly ParameterSlot[]): Promise<Record<string, Stored>> {
  const list = await storedTensors(slots);
  return Object.fromEntries(
    await Promise.all(
      list.map(async ({ name, dtype, shape, bytes }) => [name, { dtype, shape, bytes: await bytes() }] as const),
    ),
  );
}

const nf4 = new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'nf4' });
const nested = new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'fp4', bnb4bitUseDoubleQuant: true });
const int8 = new BitsAndBytesConfig({ loadIn8bit: true });

/** The small model quantized, as a checkpoint. */
async function quantizedContents(config: BitsAndBytesConfig): Promise<Record<string, Stored>> {
  const device = backend();
  const model = emptyModel();
  await using checkpoint = await openCheckpoint(await write(denseContents()));
  await loadParameters(checkpoint, model.slots, { backend: device, quantizer: quantizerFor(config, ['head']) });
  const contents = await saved(model.slots);
  model.dispose();
  expect(device.memory().usedBytes).toBe(0);
  return contents;
}

/** Loads, expects a failure, and that nothing stays once the model is disposed. */
async function failure(checkpoint: Checkpoint, options: Partial<LoadOptions> = {}): Promise<CheckpointError> {
  const device = backend();
  const model = emptyModel();
  const error: unknown = await loadParameters(checkpoint, model.slots, { backend: device, ...options }).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  model.dispose();
  expect(device.memory().usedBytes).toBe(0);
  await device.flush();
  return error as CheckpointError;
}

const failureOf = async (
  contents: Readonly<Record<string, Stored>>,
  options: Partial<LoadOptions> = {},
): Promise<CheckpointError> => {
  await using checkpoint = await openCheckpoint(await write(contents));
  const error = await failure(checkpoint, options);
  expect(error).toBeInstanceOf(CheckpointError);
  return error;
};

const replace = (contents: Record<string, Stored>, name: string, change: Partial<Stored>): Record<string, Stored> => {
  expect(contents[name], name).toBeDefined();
  return { ...contents, [name]: { ...contents[name], ...change } };
};
const withFloat = (bytes: Uint8Array, index: number, value: number): Uint8Array => {
  const copy = bytes.slice();
  new DataView(copy.buffer).setFloat32(4 * index, value, true);
  return copy;
};

describe('round trips', () => {
  it('loads dense weights bit for bit, from one file and from shards, and saves them back', async () => {
    for (const options of [{}, { maxShardSize: 2000 }]) {
      const device = backend();
      const model = emptyModel();
      await using checkpoint = await openCheckpoint(await write(denseContents(), options));
      expect(checkpoint.files.length > 1).toBe('maxShardSize' in options);
      const seen: LoadProgress[] = [];
      await loadParameters(checkpoint, model.slots, { backend: device, onProgress: (progress) => seen.push(progress) });
      expect(await saved(model.slots)).toEqual(denseContents());
      expect(seen.map(({ name }) => name)).toEqual(model.slots.map(({ name }) => name));
      expect(seen[seen.length - 1].bytes).toBe(checkpoint.dataBytes);
      model.dispose();
      expect(device.memory().usedBytes).toBe(0);
    }
  });

  it('casts dense weights, rounding to nearest even', async () => {
    const device = backend();
    const model = emptyModel();
    await using checkpoint = await openCheckpoint(await write(denseContents()));
    await loadParameters(checkpoint, model.slots, { backend: device, dtype: 'bf16' });
    for (const [name, { dtype, bytes }] of Object.entries(await saved(model.slots))) {
      expect(dtype).toBe('bf16');
      const wanted = new Float32Array(pattern(name, allShapes()[name]).buffer);
      const half = new Uint16Array(bytes.slice().buffer);
      half.forEach((bits, i) =>
        expect(Math.abs(new Float32Array(new Uint32Array([bits << 16]).buffer)[0] - wanted[i])).toBeLessThanOrEqual(
          2 ** -8 * Math.abs(wanted[i]),
        ),
      );
    }
    model.dispose();
    expect(device.memory().usedBytes).toBe(0);
  });

  it.each([
    ['nf4', nf4],
    ['fp4 nested', nested],
    ['int8', int8],
  ])('%s: what was quantized and saved loads to the same bytes', async (_, config) => {
    const contents = await quantizedContents(config);
    const device = backend();
    const model = emptyModel();
    await using checkpoint = await openCheckpoint(await write(contents));
    await loadParameters(checkpoint, model.slots, { backend: device, stored: config });
    expect(model.weights.get('head')!.kind).toBe('dense');
    expect(model.weights.get('a')!.kind).toBe(config === int8 ? 'int8' : 'bnb4');
    expect(await saved(model.slots)).toEqual(contents);
    const weight = model.weights.get('deep.b')!;
    if (weight.kind === 'bnb4') {
      const values = dequantizeBnb4(weight);
      const dense = new Float32Array(pattern('deep.b.weight', [6, 128]).buffer);
      const restored = (await values.data()) as Float32Array;
      values.dispose();
      dense.forEach((value, i) => expect(Math.abs(restored[i] - value)).toBeLessThan(0.2));
    }
    model.dispose();
    expect(device.memory().usedBytes).toBe(0);
  });

  it('shares tied weights and leaves them out when saving', async () => {
    const device = backend();
    const model = emptyModel({ tied: true });
    const { 'head.weight': _, ...contents } = denseContents();
    await using checkpoint = await openCheckpoint(await write(contents));
    await loadParameters(checkpoint, model.slots, { backend: device, quantizer: quantizerFor(nf4, []) });
    const head = model.weights.get('head')!;
    expect(head.kind === 'dense' && head.values).toBe(model.dense.get('embed.weight'));
    expect(Object.keys(await saved(model.slots)).filter((name) => name.startsWith('head'))).toEqual([]);
    model.dispose();
    expect(device.memory().usedBytes).toBe(0);
  });

  it('fills dummy weights of the same formats', async () => {
    const device = backend();
    const model = emptyModel();
    await loadDummy(model.slots, { backend: device, dtype: 'f16', quantizer: quantizerFor(nf4, ['head']) });
    const contents = await saved(model.slots);
    const real = await quantizedContents(nf4);
    expect(Object.keys(contents).sort()).toEqual(Object.keys(real).sort());
    expect(contents['a.weight'].shape).toEqual(real['a.weight'].shape);
    expect(new Set(contents['a.weight'].bytes).size).toBeGreaterThan(50);
    model.dispose();
    expect(device.memory().usedBytes).toBe(0);
  });
});

describe('checkpoints that do not fit the model', () => {
  it('names missing tensors', async () => {
    const { 'a.weight': _, 'norm.weight': __, ...contents } = denseContents();
    const error = await failureOf(contents);
    expect(error.message).toMatch(/lacks 2 of 6 tensors: norm\.weight, a\.weight/);
  });

  it('names surplus tensors, unless the architecture ignores them', async () => {
    const contents = { ...denseContents(), 'a.extra': { dtype: 'f32', shape: [1], bytes: new Uint8Array(4) } } as const;
    expect((await failureOf(contents)).message).toMatch(/a\.extra/);
    await using checkpoint = await openCheckpoint(await write(contents));
    expect(await failure(checkpoint, { ignored: [/\.extra$/] })).toBeUndefined();
  });

  it.each(['norm.weight', 'a.weight', 'embed.weight'])(
    'names file, tensor and both shapes of a misshapen %s',
    async (name) => {
      const shape = [...allShapes()[name].slice(0, -1), allShapes()[name].at(-1)! + 2];
      const error = await failureOf(replace(denseContents(), name, { shape, bytes: pattern(name, shape) }));
      expect(error.message).toContain(name);
      expect(error.message).toContain('model.safetensors');
      expect(error.message).toContain(String(shape.at(-1)));
    },
  );

  it('names a weight of integers', async () => {
    const error = await failureOf(replace(denseContents(), 'norm.weight', { dtype: 'i32' }));
    expect(error.message).toMatch(/i32[^]*norm\.weight/);
  });
});

describe('damaged quantized weights', () => {
  it.each([
    [nf4, 'a.weight.absmax'],
    [nf4, 'deep.b.weight.absmax'],
    [nested, 'a.weight.nested_absmax'],
    [int8, 'deep.b.SCB'],
  ] as const)('refuses a NaN, an infinity and a negative scale', async (config, name) => {
    const contents = await quantizedContents(config);
    for (const value of [NaN, Infinity, -1]) {
      const error = await failureOf(replace(contents, name, { bytes: withFloat(contents[name].bytes, 0, value) }), {
        stored: config,
      });
      expect(error.message).toContain(name);
      expect(error.message).toContain('model.safetensors');
    }
  });

  it.each([
    [nf4, 'a.weight.quant_map'],
    [nested, 'deep.b.weight.quant_map'],
    [nested, 'a.weight.nested_quant_map'],
  ] as const)('refuses another code book', async (config, name) => {
    const contents = await quantizedContents(config);
    await using checkpoint = await openCheckpoint(
      await write(replace(contents, name, { bytes: withFloat(contents[name].bytes, 3, 0.123) })),
    );
    const error = await failure(checkpoint, { stored: config });
    expect(error.message).toContain(name);
    const nan = await failureOf(replace(contents, name, { bytes: withFloat(contents[name].bytes, 3, NaN) }), {
      stored: config,
    });
    expect(nan.message).toContain(name);
  });

  it('refuses a missing part, a state that does not fit, and another layout of int8', async () => {
    const contents = await quantizedContents(nf4);
    const { 'a.weight.absmax': _, ...missing } = contents;
    expect((await failureOf(missing)).message).toContain('a.weight.absmax');
    const name = 'a.weight.quant_state.bitsandbytes__nf4';
    const text = new TextDecoder().decode(contents[name].bytes);
    for (const [from, to] of [
      ['[16, 64]', '[64, 16]'],
      ['"blocksize": 64', '"blocksize": 32'],
      ['"nf4"', '"fp4"'],
    ]) {
      const changed = new TextEncoder().encode(text.replace(from, to));
      expect((await failureOf(replace(contents, name, { bytes: changed, shape: [changed.length] }))).message).toContain(
        'a.weight',
      );
    }
    const bytes = await quantizedContents(int8);
    await using checkpoint = await openCheckpoint(
      await write(replace(bytes, 'a.weight_format', { bytes: new Uint8Array([1]) })),
    );
    expect((await failure(checkpoint, { stored: int8 })).message).toContain('a.weight_format');
  });
});

describe('while loading', () => {
  it.each([
    ['dense', denseContents, {}],
    ['quantizing', denseContents, { quantizer: quantizerFor(nf4, []) }],
    ['nf4', () => quantizedContents(nf4), { stored: nf4 }],
  ] as const)(
    '%s: a file that shrinks after it was opened is an error that names file and tensor',
    async (_, contents, options) => {
      const folder = await write(await contents());
      await using checkpoint = await openCheckpoint(folder);
      const path = join(folder, 'model.safetensors');
      const { length } = await readFile(path);
      await truncate(path, length - 700);
      const error = await failure(checkpoint, options);
      expect(error).toBeInstanceOf(CheckpointError);
      expect(error.message).toContain('model.safetensors');
      expect([...checkpoint.tensors.keys()].some((name) => error.message.includes(name))).toBe(true);
    },
  );

  it('a file that is gone is an error', async () => {
    const folder = await write(denseContents());
    await using checkpoint = await openCheckpoint(folder);
    await rm(join(folder, 'model.safetensors'));
    const error = await failure(checkpoint);
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.message).toContain('model.safetensors');
  });

  it('an abort rejects with its reason and leaves nothing', async () => {
    await using checkpoint = await openCheckpoint(await write(await quantizedContents(nested)));
    for (const after of [0, 1, 3, 5]) {
      const controller = new AbortController();
      const reason = new Error('stop');
      let seen = 0;
      const onProgress = () => {
        seen += 1;
        if (seen === after) controller.abort(reason);
      };
      if (after === 0) controller.abort(reason);
      expect(await failure(checkpoint, { stored: nested, signal: controller.signal, onProgress })).toBe(reason);
      expect(seen).toBe(after);
    }
  });

  it('a device that is closed is an error', async () => {
    await using checkpoint = await openCheckpoint(await write(denseContents()));
    const device = referenceBackend();
    await device.close();
    await expect(loadParameters(checkpoint, emptyModel().slots, { backend: device })).rejects.toThrow(DisposedError);
  });
});

it('a config that quantizes nothing is refused', () => {
  expect(() => quantizerFor(new BitsAndBytesConfig({}), [])).toThrow(ConfigError);
});
