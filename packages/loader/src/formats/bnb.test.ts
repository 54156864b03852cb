import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CheckpointError, UnsupportedError } from '@q/config';
import type { DType } from '@q/tensor';
import { openCheckpoint } from '../checkpoint.js';
import { compareKeys } from '../keys.js';
import type { TensorEntry } from '../safetensors/header.js';
import { temporary, unpack } from '../testing.js';
import { asFloat32, checkScales } from './bitsandbytes/parts.js';
import { checkNestedQuantMap, checkQuantMap, codeBook4bit, dynamicCodeBook } from './bnb4/code-books.js';
import { bnb4bitNames } from './bnb4/names.js';
import { formatQuantState, parseQuantState } from './bnb4/quant-state.js';
import { check4bitSizes, read4bitState, type StoredBnb4bit } from './bnb4/recognise.js';
import type { TensorLookup } from './format.js';
import { bnbInt8Names } from './int8/names.js';
import { checkWeightFormat } from './int8/recognise.js';
import { helperOwner, recogniseWeight } from './registry.js';

const temp = temporary();
const place = { file: 'f.safetensors', tensor: 'w.quant_state' };

describe('names', () => {
  it('belong to their parameter', () => {
    for (const name of Object.values(bnb4bitNames('a.weight', 'nf4', true)).slice(1))
      expect(helperOwner(name)).toBe('a.weight');
    for (const name of Object.values(bnbInt8Names('a')).slice(1)) expect(helperOwner(name)).toBe('a.weight');
    for (const name of ['a.weight', 'a.bias', 'absmax', 'SCB', 'a.quant_state'])
      expect(helperOwner(name)).toBeUndefined();
    expect(Object.keys(bnb4bitNames('a.weight', 'fp4', false))).toEqual(['weight', 'absmax', 'quantMap', 'quantState']);
  });
});

describe('real checkpoints', () => {
  it.each([
    ['llama-nf4', 'nf4', 14],
    ['llama-nf4-nested-bf16', 'nf4', 14],
    ['opt-fp4', 'fp4', 12],
  ] as const)(
    '%s: every 4-bit weight is recognised, its state written back byte for byte, its numbers valid',
    async (name, type, count) => {
      await using checkpoint = await openCheckpoint(await unpack(name, await temp.sub(name)));
      const parameters = [...checkpoint.tensors.keys()].filter((key) => helperOwner(key) === undefined);
      let found = 0;
      for (const parameter of parameters) {
        const stored = recogniseWeight(checkpoint, parameter);
        if (stored.format === 'dense') continue;
        if (stored.format !== 'bnb4') throw new Error(stored.format);
        found++;
        expect(stored.quantType).toBe(type);
        expect(stored.nested).toBe(name.includes('nested'));
        const state = await read4bitState(checkpoint, stored);
        expect(state.dtype).toBe(name.includes('bf16') ? 'bf16' : 'f32');
        expect(formatQuantState(state)).toBe(new TextDecoder().decode(await checkpoint.read(stored.quantState)));
        checkQuantMap(stored.quantMap, await checkpoint.read(stored.quantMap), type);
        expect(asFloat32(await checkpoint.read(stored.quantMap))).toEqual(codeBook4bit(type));
        if (!stored.nestedAbsmax || !stored.nestedQuantMap) {
          checkScales(stored.absmax, await checkpoint.read(stored.absmax));
          continue;
        }
        checkScales(stored.nestedAbsmax, await checkpoint.read(stored.nestedAbsmax));
        checkNestedQuantMap(stored.nestedQuantMap, await checkpoint.read(stored.nestedQuantMap));
        expect(asFloat32(await checkpoint.read(stored.nestedQuantMap))).toEqual(dynamicCodeBook());
      }
      expect(found).toBe(count);
    },
  );

  it('llama-int8: every int8 weight is recognised', async () => {
    await using checkpoint = await openCheckpoint(await unpack('llama-int8', await temp.sub('int8')));
    let found = 0;
    for (const parameter of [...checkpoint.tensors.keys()].filter((key) => helperOwner(key) === undefined)) {
      const stored = recogniseWeight(checkpoint, parameter);
      if (stored.format !== 'int8') continue;
      found++;
      checkScales(stored.scb, await checkpoint.read(stored.scb));
      checkWeightFormat(stored, await checkpoint.read(stored.weightFormat as TensorEntry));
    }
    expect(found).toBe(14);
  });
});

it('compareKeys counts helper tensors to their weight', async () => {
  await using checkpoint = await openCheckpoint(await unpack('llama-nf4-nested-bf16', await temp.sub('keys')));
  const weights = [...checkpoint.tensors.keys()].filter((key) => helperOwner(key) === undefined);
  expect(compareKeys(checkpoint, weights)).toEqual({ missing: [], unexpected: [] });
  const half = weights.filter((key) => key !== 'model.layers.0.mlp.up_proj.weight' && key !== 'model.norm.weight');
  const { missing, unexpected } = compareKeys(checkpoint, [...half, 'model.norm.bias']);
  expect(missing).toEqual(['model.norm.bias']);
  expect([...unexpected].sort()).toEqual(
    ['model.norm.weight', ...Object.values(bnb4bitNames('model.layers.0.mlp.up_proj.weight', 'nf4', true))].sort(),
  );
});

describe('quantization state', () => {
  const text =
    '{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [128, 320], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 1e-05}';
  it('is read and written back', () => {
    const state = parseQuantState(text, place);
    expect(state).toEqual({
      quantType: 'nf4',
      blockSize: 64,
      dtype: 'bf16',
      shape: [128, 320],
      nested: { blockSize: 256, dtype: 'f32', offset: 1e-5 },
    });
    expect(formatQuantState(state)).toBe(text);
  });
  it.each([
    ['{', /not valid JSON/],
    ['[]', /not a JSON object/],
    ['null', /not a JSON object/],
    ['{"shape": [1], "shape": [2]}', /key twice/],
    [text.replace('nf4', 'nf5'), /quant_type/],
    [text.replace('64', '63'), /blocksize/],
    [text.replace('64', '8192'), /blocksize/],
    [text.replace('"bfloat16"', '"int8"'), /dtype/],
    [text.replace('"bfloat16"', '"bf16"'), /dtype/],
    [text.replace('128', '-1'), /shape/],
    [text.replace('[128, 320]', '[9007199254740991, 9]'), /shape/],
    [text.replace('1e-05', 'NaN'), /not valid JSON/],
    [text.replace('1e-05', 'null'), /nested_offset/],
    [text.replace('"nested_blocksize": 256, ', ''), /nested_blocksize/],
  ])('%s is refused', (bad, message) => {
    expect(() => parseQuantState(bad, place)).toThrow(CheckpointError);
    expect(() => parseQuantState(bad, place)).toThrow(message);
    expect(() => parseQuantState(bad, place)).toThrow(/f.safetensors.*w.quant_state/);
  });
  it('with unknown keys is refused', () =>
    expect(() => parseQuantState(text.replace('{', '{"new": 1, '), place)).toThrow(UnsupportedError));
});

it('any JSON as a quantization state is read or refused with a typed error', () => {
  const good = {
    quant_type: 'nf4',
    blocksize: 64,
    dtype: 'float16',
    shape: [2, 3],
    nested_blocksize: 256,
    nested_dtype: 'float32',
    nested_offset: 0.5,
  };
  const changed = fc
    .tuple(fc.constantFrom(...Object.keys(good)), fc.jsonValue())
    .map(([key, value]) => JSON.stringify({ ...good, [key]: value }));
  fc.assert(
    fc.property(fc.oneof(changed, fc.json(), fc.uint8Array({ maxLength: 60 })), (text) => {
      try {
        const state = parseQuantState(text, place);
        expect(parseQuantState(formatQuantState(state), place)).toEqual(state);
      } catch (error) {
        if (!(error instanceof CheckpointError || error instanceof UnsupportedError)) throw error;
      }
    }),
    { seed: 7, numRuns: 2000 },
  );
});

/** A lookup over made-up tensors: name → [dtype, shape]. */
function lookup(tensors: Record<string, [DType, number[]]>): TensorLookup {
  return {
    has: (name) => name in tensors,
    tensor: (name) => {
      const [dtype, shape] = tensors[name];
      const elements = shape.reduce((a, b) => a * b, 1);
      return {
        name,
        dtype,
        shape,
        elements,
        file: 'f',
        offset: 0,
        bytes: elements * ({ f32: 4, i8: 1, u8: 1 } as Record<string, number>)[dtype],
      };
    },
  };
}
const plain: Record<string, [DType, number[]]> = {
  'a.weight': ['u8', [64, 1]],
  'a.weight.absmax': ['f32', [2]],
  'a.weight.quant_map': ['f32', [16]],
  'a.weight.quant_state.bitsandbytes__nf4': ['u8', [80]],
};
const nested: Record<string, [DType, number[]]> = {
  ...plain,
  'a.weight.absmax': ['u8', [2]],
  'a.weight.nested_absmax': ['f32', [1]],
  'a.weight.nested_quant_map': ['f32', [256]],
};
const without = (tensors: Record<string, [DType, number[]]>, name: string) =>
  Object.fromEntries(Object.entries(tensors).filter(([key]) => key !== name));

describe('recogniseWeight', () => {
  const refused: [string, Record<string, [DType, number[]]>, RegExp][] = [
    ['no absmax', without(plain, 'a.weight.absmax'), /missing.*a.weight.absmax/],
    ['no quant_map', without(plain, 'a.weight.quant_map'), /missing.*a.weight.quant_map/],
    ['no nested_quant_map', without(nested, 'a.weight.nested_quant_map'), /missing.*nested_quant_map/],
    ['no state', without(plain, 'a.weight.quant_state.bitsandbytes__nf4'), /no quantization state/],
    ['two states', { ...plain, 'a.weight.quant_state.bitsandbytes__fp4': ['u8', [80]] }, /nf4 and of fp4/],
    ['u8 absmax without nesting', { ...plain, 'a.weight.absmax': ['u8', [2]] }, /wrong type.*a.weight.absmax/],
    ['a quant_map of 15', { ...plain, 'a.weight.quant_map': ['f32', [15]] }, /wrong type or size.*quant_map/],
    ['an endless state', { ...plain, 'a.weight.quant_state.bitsandbytes__nf4': ['u8', [5000]] }, /absurdly long/],
    ['i8 without scales', { 'a.weight': ['i8', [2, 3]] }, /no scales.*a.SCB/],
    ['scales of another length', { 'a.weight': ['i8', [2, 3]], 'a.SCB': ['f32', [3]] }, /wrong type or size.*a.SCB/],
    ['scales for floats', { 'a.weight': ['f32', [2, 3]], 'a.SCB': ['f32', [2]] }, /no i8 matrix/],
  ];
  it.each(refused)('refuses %s', (_, tensors, message) => {
    expect(() => recogniseWeight(lookup(tensors), 'a.weight')).toThrow(CheckpointError);
    expect(() => recogniseWeight(lookup(tensors), 'a.weight')).toThrow(message);
  });
  it('takes int8 without weight_format and dense weights', () => {
    expect(recogniseWeight(lookup({ 'a.weight': ['i8', [2, 3]], 'a.SCB': ['f32', [2]] }), 'a.weight')).toMatchObject({
      format: 'int8',
    });
    expect(recogniseWeight(lookup({ bare: ['f32', [2]] }), 'bare')).toMatchObject({ format: 'dense' });
  });

  const state = { quantType: 'nf4', blockSize: 64, dtype: 'f32', shape: [4, 32] } as const;
  it('checks sizes against the state', () => {
    const stored = (tensors: Record<string, [DType, number[]]>) =>
      recogniseWeight(lookup(tensors), 'a.weight') as StoredBnb4bit;
    const nestedState = { ...state, nested: { blockSize: 256, dtype: 'f32', offset: 0.1 } } as const;
    check4bitSizes(stored(plain), state);
    check4bitSizes(stored(nested), nestedState);
    check4bitSizes(stored({ ...plain, 'a.weight': ['f32', [16, 1]] }), state); // bnb_4bit_quant_storage float32
    expect(() => check4bitSizes(stored(plain), { ...state, shape: [4, 33] })).toThrow(/wrong size.*tensor a.weight,/);
    expect(() => check4bitSizes(stored(plain), { ...state, blockSize: 32 })).toThrow(/wrong size.*a.weight.absmax/);
    expect(() => check4bitSizes(stored({ ...nested, 'a.weight.nested_absmax': ['f32', [2]] }), nestedState)).toThrow(
      /wrong size.*nested_absmax/,
    );
    expect(() => check4bitSizes(stored(plain), { ...state, quantType: 'fp4' })).toThrow(/disagree/);
    expect(() => check4bitSizes(stored(nested), state)).toThrow(/double quantization/);
  });
});

describe('numbers', () => {
  const entry = lookup({ 'a.weight.absmax': ['f32', [3]] }).tensor('a.weight.absmax');
  const bytes = (...values: number[]) => new Uint8Array(new Float32Array(values).buffer);
  it.each([NaN, Infinity, -1, -Infinity])('%d is no scale', (value) => {
    expect(() => checkScales(entry, bytes(1, 0, value))).toThrow(CheckpointError);
    expect(() => checkScales(entry, bytes(1, 0, value))).toThrow(/file f, tensor a.weight.absmax, position 2/);
  });
  it('zero is a scale, and unaligned bytes are read', () => {
    const shifted = new Uint8Array(9);
    shifted.set(bytes(0, 2), 1);
    expect(() => checkScales(entry, shifted.subarray(1))).not.toThrow();
  });
  it('only the standard code books pass', () => {
    const book = codeBook4bit('nf4');
    expect(() => checkQuantMap(entry, bytes(...book), 'fp4')).toThrow(UnsupportedError);
    book[3] = NaN;
    expect(() => checkQuantMap(entry, bytes(...book), 'nf4')).toThrow(CheckpointError);
    expect(() => checkNestedQuantMap(entry, bytes(...dynamicCodeBook().reverse()))).toThrow(/dynamic/);
  });
  it('only row-major int8 passes', () => {
    const stored = recogniseWeight(lookup({ 'a.weight': ['i8', [2, 3]], 'a.SCB': ['f32', [2]] }), 'a.weight');
    if (stored.format !== 'int8') throw new Error(stored.format);
    expect(() => checkWeightFormat(stored, new Uint8Array([1]))).toThrow(UnsupportedError);
  });
});
