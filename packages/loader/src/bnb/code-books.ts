// What the codes of bitsandbytes stand for. Figures of bitsandbytes 0.50.2 (functional.py, get_4bit_type and
// create_dynamic_map), as float32.
import type { Bnb4bitType } from './names.js';

const nf4 = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
  0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
];
const fp4Positive = [0, 0.0052083334885537624, 0.6666666865348816, 1, 0.3333333432674408, 0.5, 0.1666666716337204, 0.25];

/** The 16 values of a 4-bit type, by code. */
export const codeBook4bit = (type: Bnb4bitType): Float32Array => new Float32Array(type === 'nf4' ? nf4 : [...fp4Positive, 0, ...fp4Positive.slice(1).map((value) => -value)]);

/**
 * The 256 values of the signed dynamic 8-bit code, ascending, by code: for each of 7 decimal exponents the midpoints of
 * an even division of [0.1, 1] into 1, 2, 4 ... 64 parts, both signs, then 0 and 1. Roundings are those of torch's
 * float32 linspace (from the near end, fused multiply-add), so the values equal bitsandbytes' bit for bit.
 */
export function dynamicCodeBook(): Float32Array {
  const round = Math.fround;
  const values = [0, 1];
  for (let i = 0; i < 7; i++) {
    const parts = 2 ** i;
    const step = round(round(1 - round(0.1)) / parts);
    const edge = (k: number) => (k < Math.floor((parts + 1) / 2) ? round(round(0.1) + step * k) : round(1 - step * (parts - k)));
    for (let k = 0; k < parts; k++) {
      const value = round(round(10 ** (i - 6)) * round(round(edge(k) + edge(k + 1)) / 2));
      values.push(value, -value);
    }
  }
  return new Float32Array(values).sort();
}
