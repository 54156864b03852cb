import { expect, it } from 'vitest';
import { fuzzTemplate } from './template.js';

/** mulberry32 */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}

it('random templates render or are refused, and change nothing', { timeout: 120_000 }, async () => {
  for (let seed = 0; seed < 300; seed++) await expect(fuzzTemplate(seeded(seed))).resolves.toBeUndefined();
});
