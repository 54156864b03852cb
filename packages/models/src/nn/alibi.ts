import { constantOf, type Constant } from './constant.js';

/**
 * Slopes of attention with linear biases (Press et al. 2022): 2^(-8 i / n) for a power of two n, and for other counts
 * those of the power below with every second one of the power above, as transformers' build_alibi_tensor has them.
 */
export function alibiSlopes(numHeads: number): Float32Array {
  const power = 2 ** Math.floor(Math.log2(numHeads));
  const base = (heads: number) => Math.fround(2 ** -(2 ** -(Math.log2(heads) - 3)));
  return Float32Array.from({ length: numHeads }, (_, head) =>
    head < power ? base(power) ** (head + 1) : base(2 * power) ** (2 * (head - power) + 1),
  );
}

/**
 * MPT's slopes, as transformers' build_mpt_alibi_tensor has them: 2^(-biasMax i / n) for a power of two n, and for
 * other counts those of the power above, every second one first.
 */
export function mptAlibiSlopes(numHeads: number, biasMax: number): Float32Array {
  const power = 2 ** Math.ceil(Math.log2(numHeads));
  const all = Array.from({ length: power }, (_, i) => 1 / Math.fround(2 ** Math.fround((i + 1) * (biasMax / power))));
  if (power === numHeads) return Float32Array.from(all);
  const [even, odd] = [all.filter((_, i) => i % 2 === 0), all.filter((_, i) => i % 2 === 1)];
  return Float32Array.from([...odd, ...even].slice(0, numHeads));
}

/** A number to the nearest bfloat16, ties to even. */
function bfloat16(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  bits[0] = ((bits[0] + 0x7fff + ((bits[0] >>> 16) & 1)) & 0xffff0000) >>> 0;
  return new Float32Array(bits.buffer)[0];
}

/**
 * Falcon's slopes: those of Press et al. in bfloat16, and scaled as the scores are, as its sdpa attention has them (the
 * eager one of transformers 5.17 adds the bias twice). Python also rounds slope times position to
 * bfloat16, which shifts far keys by up to 2^-9 of their bias; that goes by position, not by distance, and is left out.
 */
export const falconAlibiSlopes = (numHeads: number, headDim: number): Float32Array =>
  alibiSlopes(numHeads).map((slope) => bfloat16(slope) / Math.sqrt(headDim));

/** Slopes on a device: f32 [numHeads]. */
export const alibiTable = (slopes: Float32Array): Constant => constantOf(slopes, [slopes.length]);
