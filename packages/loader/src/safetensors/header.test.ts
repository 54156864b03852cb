import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CheckpointError } from '@q/config';
import { fileOf } from '../testing.js';
import { maxHeaderBytes } from '../limits.js';
import { parseSafetensorsHeader } from './header.js';

const FILE = 'model.safetensors';

const parse = (header: unknown, dataBytes: number) => {
  const file = fileOf(header, dataBytes);
  return parseSafetensorsHeader(file, file.length, FILE);
};
const entry = (dtype: string, shape: unknown, ...data_offsets: unknown[]) => ({ dtype, shape, data_offsets });

describe('parseSafetensorsHeader', () => {
  it('reads names, dtypes, shapes and absolute offsets, in the order of the data', () => {
    const header = {
      __metadata__: { format: 'pt' },
      b: entry('BF16', [2, 3], 4, 16),
      a: entry('F32', [], 0, 4),
      '12': entry('U8', [0, 7], 16, 16),
    };
    const start = 8 + JSON.stringify(header).length;
    const got = parse(header, 16);
    expect(got.metadata).toEqual({ format: 'pt' });
    expect([...got.tensors.values()]).toEqual([
      { name: 'a', dtype: 'f32', shape: [], elements: 1, file: FILE, offset: start, bytes: 4 },
      { name: 'b', dtype: 'bf16', shape: [2, 3], elements: 6, file: FILE, offset: start + 4, bytes: 12 },
      { name: '12', dtype: 'u8', shape: [0, 7], elements: 0, file: FILE, offset: start + 16, bytes: 0 },
    ]);
  });

  it('lists tensors of other dtypes as unsupported, sizes checked', () => {
    const got = parse(
      {
        a: entry('F64', [2], 0, 16),
        b: entry('F8_E4M3', [3], 16, 19),
        c: entry('F4', [4], 19, 21),
        d: entry('X9', [4], 21, 30),
      },
      30,
    );
    expect(got.tensors.size).toBe(0);
    expect([...got.unsupported.values()].map((t) => [t.name, t.storedDtype, t.bytes])).toEqual([
      ['a', 'F64', 16],
      ['b', 'F8_E4M3', 3],
      ['c', 'F4', 2],
      ['d', 'X9', 9],
    ]);
  });

  it('takes a tensor named like an object method or __proto__', () => {
    const got = parse(
      '{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"toString":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
      2,
    );
    expect([...got.tensors.keys()]).toEqual(['__proto__', 'toString']);
  });

  const bad: [string, unknown, number, RegExp][] = [
    ['no JSON', '{"a":', 0, /not valid UTF-8 JSON/],
    ['an array', '[1,2]', 0, /not a JSON object/],
    ['leading space', ' {}', 0, /not a JSON object/],
    [
      'a key twice',
      '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
      1,
      /key twice .*key a/,
    ],
    ['a field twice', '{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', 1, /key twice .*dtype/],
    ['metadata of numbers', { __metadata__: { n: 1 } }, 0, /__metadata__/],
    ['no dtype', { a: { shape: [1], data_offsets: [0, 1] } }, 1, /no dtype.*tensor a/],
    ['null tensor', { a: null }, 0, /not an object.*tensor a/],
    ['negative size', { a: entry('U8', [-1], 0, 1) }, 1, /shape is not.*tensor a/],
    ['fractional size', { a: entry('U8', [1.5], 0, 1) }, 1, /shape is not.*tensor a/],
    ['no offsets', { a: { dtype: 'U8', shape: [1] } }, 1, /data_offsets is not.*tensor a/],
    [
      'offset beyond 2^53',
      '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551615]}}',
      1,
      /data_offsets is not.*tensor a/,
    ],
    ['out of range', { a: entry('U8', [2], 0, 2) }, 1, /outside the file.*tensor a/],
    ['backwards', { a: entry('U8', [2], 2, 0) }, 2, /outside the file.*tensor a/],
    ['overlap', { a: entry('U8', [2], 0, 2), b: entry('U8', [2], 1, 3) }, 3, /overlaps.*tensor b/],
    ['same data twice', { a: entry('U8', [2], 0, 2), b: entry('U8', [2], 0, 2) }, 2, /overlaps.*tensor b/],
    ['gap', { a: entry('U8', [1], 0, 1), b: entry('U8', [1], 2, 3) }, 3, /gap.*tensor b/],
    ['data after the last tensor', { a: entry('U8', [1], 0, 1) }, 2, /do not cover/],
    ['data without tensors', {}, 1, /do not cover/],
    ['shape against size', { a: entry('F32', [3], 0, 8) }, 8, /shape and size.*tensor a/],
    ['product overflow', { a: entry('U8', [2 ** 40, 2 ** 40], 0, 1) }, 1, /overflows.*tensor a/],
    [
      'product overflow to a small number',
      { a: entry('U8', [2 ** 32, 2 ** 32, 2 ** 0], 0, 0) },
      0,
      /overflows.*tensor a/,
    ],
    ['half a byte', { a: entry('F4', [3], 0, 2) }, 2, /misaligned.*tensor a/],
    [
      'name with half a surrogate pair',
      '{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
      1,
      /no valid text/,
    ],
  ];
  it.each(bad)('refuses %s', (_, header, dataBytes, message) => {
    expect(() => parse(header, dataBytes)).toThrow(CheckpointError);
    expect(() => parse(header, dataBytes)).toThrow(message);
    expect(() => parse(header, dataBytes)).toThrow(FILE);
  });

  it('refuses lengths that cannot be right', () => {
    const file = fileOf({}, 0);
    const withLength = (length: bigint) => {
      new DataView(file.buffer).setBigUint64(0, length, true);
      return () => parseSafetensorsHeader(file, file.length, FILE);
    };
    expect(withLength(BigInt(maxHeaderBytes) + 1n)).toThrow(/absurd/);
    expect(withLength(2n ** 64n - 1n)).toThrow(/absurd/);
    expect(withLength(3n)).toThrow(/cut short/);
    expect(withLength(0n)).toThrow(/empty/);
    expect(() => parseSafetensorsHeader(file.subarray(0, 5), 5, FILE)).toThrow(/too short/);
    expect(() => parseSafetensorsHeader(new Uint8Array(), 0, FILE)).toThrow(/too short/);
    const bytes = fileOf('{"\xff": 1}', 0);
    bytes[10] = 0xff;
    expect(() => parseSafetensorsHeader(bytes, bytes.length, FILE)).toThrow(/UTF-8/);
  });

  it('survives nesting of any depth', () => {
    expect(() => parse('{"a":' + '['.repeat(1_000_000) + ']'.repeat(1_000_000) + '}', 0)).toThrow(CheckpointError);
  });
});

describe('fuzz', () => {
  const good = fileOf(
    {
      __metadata__: { format: 'pt' },
      'w.a': entry('F32', [2, 3], 0, 24),
      'w.b': entry('I8', [8], 24, 32),
      s: entry('F16', [], 32, 34),
    },
    34,
  );
  const check = (bytes: Uint8Array) => {
    try {
      const header = parseSafetensorsHeader(bytes, bytes.length, FILE);
      let at = header.dataOffset;
      const all = [...header.tensors.values(), ...header.unsupported.values()].sort(
        (a, b) => a.offset - b.offset || a.bytes - b.bytes,
      );
      for (const { offset, bytes: size } of all) {
        expect(offset).toBe(at);
        at += size;
      }
      expect(at).toBe(bytes.length);
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      expect(error.message).toContain(FILE);
    }
  };
  const parameters = { seed: 20240611, numRuns: 3000 };

  it('any change of bytes gives a CheckpointError or a header that covers the file', () => {
    const change = fc.record({ at: fc.nat(good.length - 1), value: fc.nat(255) });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 6 }), fc.option(fc.nat(good.length)), (changes, cut) => {
        const bytes = good.slice(0, cut ?? good.length);
        for (const { at, value } of changes) if (at < bytes.length) bytes[at] = value;
        check(bytes);
      }),
      parameters,
    );
  });

  it('any bytes at all', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), check), parameters);
  });

  it('any JSON as the header', () => {
    const number = fc.oneof(fc.integer({ min: -2, max: 40 }), fc.double());
    const tensor = fc.record(
      {
        dtype: fc.constantFrom('F32', 'U8', 'F4', 'zz', 7),
        shape: fc.array(number, { maxLength: 3 }),
        data_offsets: fc.array(number, { maxLength: 3 }),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(
        fc.oneof(fc.dictionary(fc.string(), fc.oneof(tensor, fc.jsonValue())), fc.jsonValue()),
        fc.nat(40),
        (header, dataBytes) => check(fileOf(JSON.stringify(header), dataBytes)),
      ),
      parameters,
    );
  });
});
