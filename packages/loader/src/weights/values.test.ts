// Tensors that say otherwise than the config, and numbers that are none.
import { describe, expect, it } from 'vitest';
import { checkScales } from '../formats/bitsandbytes/parts.js';
import { openCheckpoint } from '../checkpoint.js';
import { loadParameters } from './load.js';
import { quantizerFor } from './quantize.js';
import {
  backend,
  denseContents,
  emptyModel,
  failure,
  failureOf,
  int8,
  nested,
  nf4,
  quantizedContents,
  replace,
  saved,
  withFloat,
  write,
} from './testing.js';

describe('what the tensors say', () => {
  it('other values under a tied name are kept apart, equal ones are shared', async () => {
    for (const equal of [false, true]) {
      const device = backend();
      const model = emptyModel({ tied: true });
      const contents = denseContents();
      contents['head.weight'] = { ...contents['head.weight'], bytes: contents['embed.weight'].bytes.slice() };
      if (!equal) contents['head.weight'].bytes[2000] ^= 1;
      await using checkpoint = await openCheckpoint(await write(contents));
      const lines: string[] = [];
      const { slots } = await loadParameters(checkpoint, model.slots, {
        backend: device,
        onWarning: (line) => void lines.push(line),
      });
      const head = model.weights.get('head')!;
      expect(head.kind === 'dense' && head.values === model.dense.get('embed.weight')).toBe(equal);
      expect(lines).toEqual(equal ? [] : [expect.stringMatching(/ties head\.weight to embed\.weight.*not tied/)]);
      const { 'head.weight': own, ...rest } = contents;
      expect(await saved(slots)).toEqual(equal ? rest : { ...rest, 'head.weight': own });
      model.dispose();
      expect(device.memory().usedBytes).toBe(0);
    }
  });

  it('quantized weights say what they are without a config', async () => {
    for (const [config, method] of [
      [nf4, 'nf4'],
      [nested, 'fp4'],
      [int8, 'llm_int8'],
    ] as const) {
      const contents = await quantizedContents(config);
      const device = backend();
      const model = emptyModel();
      await using checkpoint = await openCheckpoint(await write(contents));
      const { slots, quantization } = await loadParameters(checkpoint, model.slots, {
        backend: device,
        keepDense: ['head'],
      });
      expect(quantization?.quantizationMethod()).toBe(method);
      expect(quantization).toMatchObject({ bnb4bitUseDoubleQuant: config === nested, llmInt8SkipModules: null });
      expect(await saved(slots)).toEqual(contents);
      model.dispose();
    }
  });
});

describe('numbers that are none', () => {
  const halves = { f32: 4, f16: 2, bf16: 2 } as const;
  const with16 = (bits: number, at: number): Uint8Array => {
    const units = new Uint16Array(16 * 64);
    units[at] = bits;
    return new Uint8Array(units.buffer);
  };

  it.each([
    ['f32', withFloat(new Uint8Array(16 * 64 * halves.f32), 700, NaN), /NaN.*a\.weight, position 700/],
    ['f32', withFloat(new Uint8Array(16 * 64 * halves.f32), 5, -Infinity), /infinite.*a\.weight, position 5/],
    ['f16', with16(0xfc00, 1023), /infinite.*a\.weight, position 1023/],
    ['f16', with16(0x7c01, 3), /NaN.*position 3/],
    ['bf16', with16(0x7f80, 0), /infinite.*position 0/],
    ['bf16', with16(0xffc1, 9), /NaN.*position 9/],
  ] as const)('checkFinite names the tensor: %s', async (dtype, bytes, message) => {
    const contents = replace(denseContents(), 'a.weight', { dtype, bytes });
    for (const quantizer of [undefined, quantizerFor(nf4, [])])
      expect((await failureOf(contents, { checkFinite: true, quantizer })).message).toMatch(message);
    await using checkpoint = await openCheckpoint(await write(contents));
    expect(await failure(checkpoint)).toBeUndefined();
  });

  it('checkFinite passes the largest and smallest numbers there are', async () => {
    const bytes = new Uint8Array(
      Uint16Array.from({ length: 16 * 64 }, (_, i) => [0x7bff, 0xfbff, 1, 0x8000][i % 4]).buffer,
    );
    await using checkpoint = await openCheckpoint(
      await write(replace(denseContents(), 'a.weight', { dtype: 'f16', bytes })),
    );
    expect(await failure(checkpoint, { checkFinite: true })).toBeUndefined();
  });

  it.each([
    ['nf4', nf4],
    ['nested', nested],
    ['int8', int8],
  ])('quantizing an infinite or NaN weight is refused with its name: %s', async (_, config) => {
    for (const value of [Infinity, -Infinity, NaN]) {
      const bytes = withFloat(denseContents()['deep.b.weight'].bytes, 300, value);
      const contents = replace(denseContents(), 'deep.b.weight', { bytes });
      const error = await failureOf(contents, { quantizer: quantizerFor(config, ['head']) });
      expect(error.message).toMatch(/cannot be quantized.*deep\.b\.weight/);
    }
  });
});

it('checkScales takes every absmax of a double-quantized checkpoint', async () => {
  await using checkpoint = await openCheckpoint(await write(await quantizedContents(nested)));
  let checked = 0;
  for (const entry of checkpoint.tensors.values()) {
    if (!/absmax$/.test(entry.name)) continue;
    checkScales(entry, await checkpoint.read(entry));
    checked += 1;
  }
  expect(checked).toBe(4);
  const norm = checkpoint.tensor('a.weight.quant_state.bitsandbytes__fp4');
  expect(() => checkScales({ ...norm, dtype: 'f16' }, new Uint8Array(4))).toThrow(/scales are stored as f16/);
});
