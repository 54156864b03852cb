import { describe, expect, it } from 'vitest';
import { ACCELERATE_SIZES, HUB_SIZES, parseSizeText } from './size.js';

describe('parseSizeText', () => {
  it.each([
    ['3TiB', undefined, 3 * 2 ** 40],
    ['2 TB ', undefined, 2e12],
    ['9B', undefined, 9],
    ['1e3MB', 1e9, undefined],
    ['1_000KB', 1e6, undefined],
    ['0MB', 0, undefined],
    ['3Gb', 375e6, 3e9],
    ['3GiB', 3 * 2 ** 30, 3 * 2 ** 30],
    [' .5kib', 512, undefined],
    [17, 17, 17],
    [null, undefined, undefined],
    ['2ib', undefined, undefined],
  ])('%s', (size, accelerate, hub) => {
    expect(parseSizeText(size, ACCELERATE_SIZES)).toBe(accelerate);
    expect(parseSizeText(size, HUB_SIZES)).toBe(hub);
  });
});
