import type { QuantType } from '../../driver/schema.js';

const round = Math.fround;

/** The 16 values of NormalFloat4 (Dettmers et al. 2023, appendix E), ascending: code i stands for nf4[i]. */
const nf4 = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
];

/**
 * Magnitudes of bitsandbytes' 4-bit float (1 sign, 2 exponent, 1 fraction bit) by its low three bits; bit 3 is the
 * sign.
 */
const fp4Magnitudes = [
  0, 0.0052083334885537624, 0.6666666865348816, 1, 0.3333333432674408, 0.5, 0.1666666716337204, 0.25,
];

/** Value of each 4-bit code, f32 [16]. */
export const codebooks: Readonly<Record<QuantType, Float32Array>> = {
  nf4: Float32Array.from(nf4),
  fp4: Float32Array.from([...fp4Magnitudes, ...fp4Magnitudes.map((value) => -value)]),
};

/**
 * The 256 values in which bitsandbytes stores nested absmax: its signed dynamic map (Dettmers 2016), ascending. Decade
 * i of 7 holds 2^i means of equal parts of [0.1, 1], scaled by 10^(i - 6), with both signs; then 0 and 1.
 */
export const dynamicMap: Float32Array = (() => {
  const values = [0, 1];
  for (let i = 0; i < 7; i++) {
    const parts = 2 ** i;
    const edge = (j: number) => linspace(0.1, 1, parts + 1, j);
    for (let j = 0; j < parts; j++) {
      const mean = round(round(edge(j) + edge(j + 1)) / 2);
      const value = round(round(10 ** (i - 6)) * mean);
      values.push(value, -value);
    }
  }
  return Float32Array.from(values).sort();
})();

/** Point i of `count` equally spaced ones, computed in f32 from the nearer end. */
function linspace(start: number, end: number, count: number, i: number): number {
  const step = round((round(end) - round(start)) / (count - 1));
  return i < count / 2 ? round(round(start) + step * i) : round(round(end) - step * (count - 1 - i));
}
