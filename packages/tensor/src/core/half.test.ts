import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bf16FromNumber, bf16ToNumber, f16FromNumber, f16ToNumber } from './half.js';

const every = Array.from({ length: 0x10000 }, (_, bits) => bits);
const f32Bits = (value: number): number => new Uint32Array(Float32Array.of(value).buffer)[0];
const f32Value = (bits: number): number => new Float32Array(Uint32Array.of(bits).buffer)[0];

/** Nearest of two neighbours by exact distance, the even one on ties; doubles hold all of this exactly. */
function nearest(value: number, toNumber: (bits: number) => number, infinity: number): number {
  const magnitude = Math.abs(value);
  let [low, high] = [0, infinity];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (toNumber(middle) <= magnitude) low = middle;
    else high = middle;
  }
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  if (magnitude === toNumber(low)) return sign | low;
  // Beyond the largest finite value, infinity stands at the next power of two.
  const above = high === infinity ? 2 * toNumber(infinity - 1) - toNumber(infinity - 2) : toNumber(high);
  const [down, up] = [magnitude - toNumber(low), above - magnitude];
  return sign | (down < up || (down === up && low % 2 === 0) ? low : high);
}

describe.each([
  ['f16', f16FromNumber, f16ToNumber, 0x7c00],
  ['bf16', bf16FromNumber, bf16ToNumber, 0x7f80],
] as const)('%s', (name, from, to, infinity) => {
  it('keeps all 65,536 bit patterns', () => {
    for (const bits of every) {
      const isNan = (bits & 0x7fff) > infinity;
      if (isNan) {
        expect(to(bits)).toBeNaN();
        expect(from(to(bits)) & 0x7fff).toBeGreaterThan(infinity);
      } else if (from(to(bits)) !== bits)
        expect.fail(`${name} ${bits.toString(16)} became ${from(to(bits)).toString(16)}`);
    }
  });

  it('means what IEEE 754 says', () => {
    const fractionBits = name === 'f16' ? 10 : 7;
    const bias = name === 'f16' ? 15 : 127;
    for (const bits of every.slice(0, infinity)) {
      const [exponent, fraction] = [bits >> fractionBits, bits & (2 ** fractionBits - 1)];
      const value =
        exponent === 0
          ? fraction * 2 ** (1 - bias - fractionBits)
          : (1 + fraction / 2 ** fractionBits) * 2 ** (exponent - bias);
      if (to(bits) !== value || to(bits | 0x8000) !== -value)
        expect.fail(`${bits.toString(16)} is ${to(bits)}, not ${value}`);
    }
    expect(to(infinity)).toBe(Infinity);
    expect(to(infinity | 0x8000)).toBe(-Infinity);
  });

  it('rounds every midpoint of two neighbours to the even one, and what is beside it to the nearer one', () => {
    for (const bits of every.slice(0, infinity - 1)) {
      const middle = f32Bits((to(bits) + to(bits + 1)) / 2);
      const even = bits % 2 === 0 ? bits : bits + 1;
      const got = [
        from(f32Value(middle)),
        from(f32Value(middle - 1)),
        from(f32Value(middle + 1)),
        from(-f32Value(middle)),
      ];
      const wanted = f32Value(middle) === (to(bits) + to(bits + 1)) / 2 ? [even, bits, bits + 1, even | 0x8000] : got;
      if (got.some((value, i) => value !== wanted[i]))
        expect.fail(`around ${bits.toString(16)}: ${got.map((value) => value.toString(16))}`);
    }
  });

  it('rounds any f32 to the nearest', () => {
    fc.assert(
      fc.property(fc.float({ noNaN: true }), (value) =>
        Math.abs(value) === Infinity
          ? from(value) === (infinity | (value < 0 ? 0x8000 : 0))
          : from(value) === nearest(value, to, infinity),
      ),
      { numRuns: 3000, seed: 2 },
    );
    expect(from(NaN) & 0x7fff).toBeGreaterThan(infinity);
    expect(from(1e39)).toBe(infinity);
  });
});
