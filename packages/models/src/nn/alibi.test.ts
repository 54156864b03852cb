import { describe, expect, it } from 'vitest';
import { falconAlibiSlopes, mptAlibiSlopes } from './alibi.js';

// Values of build_mpt_alibi_tensor and of Falcon's build_alibi_tensor in transformers 5.17, for a key one further back.
describe('slopes', () => {
  it('of MPT: the maximum, and counts that are no power of two', () => {
    expect([...mptAlibiSlopes(4, 8)]).toEqual([0.25, 0.0625, 0.015625, 0.00390625]);
    expect([...mptAlibiSlopes(4, 16)]).toEqual([0.0625, 0.00390625, 0.000244140625, 0.0000152587890625]);
    expect([...mptAlibiSlopes(6, 8)]).toEqual([0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
  });

  it('of Falcon: rounded to bfloat16 and divided by the root of the size of a head', () => {
    expect([...falconAlibiSlopes(4, 16)]).toEqual([0.0625, 0.015625, 0.00390625, 0.0009765625]);
    const [first] = falconAlibiSlopes(16, 64);
    expect(first * 8).toBe(0.70703125); // 2^-0.5
  });
});
