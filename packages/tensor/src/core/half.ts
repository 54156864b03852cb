// Conversions between f32 and the 16-bit formats, rounding to nearest even (IEEE 754).

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

export function bf16FromNumber(value: number): number {
  f32[0] = value;
  const bits = u32[0];
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

export function bf16ToNumber(bits: number): number {
  u32[0] = bits << 16;
  return f32[0];
}

export function f16FromNumber(value: number): number {
  f32[0] = value;
  const bits = u32[0];
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal in f16: adding 0.5 lines the value up with the f16 unit 2^-24, and the addition rounds to nearest even.
    u32[0] = magnitude;
    f32[0] += 0.5;
    return sign | (u32[0] - 0x3f000000);
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

export function f16ToNumber(bits: number): number {
  const exponent = (bits >>> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The nearest value of a dtype, ties to even: f32 for all but the 16-bit floats. */
export function roundTo(dtype: 'f32' | 'f16' | 'bf16', value: number): number {
  if (dtype === 'f16') return f16ToNumber(f16FromNumber(value));
  return dtype === 'bf16' ? bf16ToNumber(bf16FromNumber(value)) : Math.fround(value);
}
