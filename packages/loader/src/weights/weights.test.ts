// Loading and saving on the reference backend: every way in which files and model can disagree, and what is left
// afterwards.
import { readFile, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BitsAndBytesConfig, CheckpointError, ConfigError, DisposedError } from '@q/config';
import { dequantizeBnb4, referenceBackend } from '@q/tensor';
import { openCheckpoint } from '../checkpoint.js';
import { loadDummy } from './dummy.js';
import { loadParameters, type LoadProgress } from './load.js';
import { quantizerFor } from './quantize.js';
import {
  allShapes,
  backend,
  denseContents,
  emptyModel,
  failure,
  failureOf,
  int8,
  nested,
  nf4,
  pattern,
  quantizedContents,
  replace,
  saved,
  withFloat,
  write,
} from './testing.js';

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
    await loadParameters(checkpoint, model.slots, { backend: device, dtype: 'bf16', keepInFp32: ['a'] });
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

  it.each([undefined, 'f16', 'bf16', 'f32'] as const)(
    'a parameter that is always float32 is so in a model of %s, from a file in bf16',
    async (dtype) => {
      const device = backend();
      const [source, model] = [emptyModel(), emptyModel()];
      await using original = await openCheckpoint(await write(denseContents()));
      await loadParameters(original, source.slots, { backend: device, dtype: 'bf16' });
      await using checkpoint = await openCheckpoint(await write(await saved(source.slots)));
      const slots = model.slots.map((slot) => (slot.name === 'norm.weight' ? { ...slot, inFp32: true } : slot));
      await loadParameters(checkpoint, slots, { backend: device, dtype });
      for (const [name, { dtype: kept }] of Object.entries(await saved(slots)))
        expect(kept, name).toBe(name === 'norm.weight' ? 'f32' : (dtype ?? 'bf16'));
      source.dispose();
      model.dispose();
      expect(device.memory().usedBytes).toBe(0);
    },
  );

  it.each([
    [{ dtype: 'f16' }, 'f16', 'f32'],
    [{ dtype: 'bf16' }, 'bf16', 'bf16'],
    [{ dtype: 'f16', modelDType: 'bf16' }, 'f16', 'f16'],
    [{ modelDType: 'f16' }, 'bf16', 'f32'],
    [{ modelDType: 'bf16' }, 'bf16', 'bf16'],
  ] as const)('%j: some modules stay in float32 where the model becomes float16', async (dtypes, others, kept) => {
    const device = backend();
    const [source, model] = [emptyModel(), emptyModel()];
    await using original = await openCheckpoint(await write(denseContents()));
    await loadParameters(original, source.slots, { backend: device, dtype: 'bf16' });
    await using checkpoint = await openCheckpoint(await write(await saved(source.slots)));
    await loadParameters(checkpoint, model.slots, { backend: device, ...dtypes, keepInFp32: ['a'] });
    for (const [name, { dtype }] of Object.entries(await saved(model.slots)))
      expect(dtype, name).toBe(name.startsWith('a.') ? kept : others);
    for (const each of [source, model]) each.dispose();
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

  it('warns of surplus tensors, unless the architecture ignores them', async () => {
    const contents = { ...denseContents(), 'a.extra': { dtype: 'f32', shape: [1], bytes: new Uint8Array(4) } } as const;
    await using checkpoint = await openCheckpoint(await write(contents));
    const lines: string[] = [];
    const onWarning = (line: string) => void lines.push(line);
    expect(await failure(checkpoint, { onWarning, ignored: [/\.extra$/] })).toBeUndefined();
    expect(lines).toEqual([]);
    expect(await failure(checkpoint, { onWarning })).toBeUndefined();
    expect(lines).toEqual([expect.stringMatching(/^1 tensor .* does not have: a\.extra$/)]);
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
