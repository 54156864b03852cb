import { ConfigError } from '@q/config';
import { describe, expect, it } from 'vitest';
import { formatSize, parseSize } from './index.js';

describe('parseSize', () => {
  it.each([
    ['10GiB', 10 * 2 ** 30],
    ['30GIB', 30 * 2 ** 30],
    ['1GB', 1e9],
    ['600MB', 6e8],
    ['8Gb', 1e9],
    ['1.5 KiB', 1536],
    ['0.0000000001GB', 0],
    [0, 0],
    [2 ** 53 - 1, 2 ** 53 - 1],
  ])('%s is %d bytes', (size, bytes) => expect(parseSize(size)).toBe(bytes));

  it.each(['', '10', '10B', '10TB', '-1GB', '1,5GB', '1e400GB', 'nanGB', '10GB ', -1, 1.5, NaN, Infinity])(
    '%s is an error',
    (size) => {
      expect(() => parseSize(size)).toThrow(ConfigError);
      expect(() => parseSize(size)).toThrow(
        expect.objectContaining({ fields: expect.objectContaining({ rule: 'invalid_size' }) }),
      );
    },
  );

  it('never gives minus zero', () => expect(Object.is(parseSize('-0GB'), 0)).toBe(true));
});

describe('formatSize', () => {
  it.each([
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.00 KB'],
    [12_345, '12.3 KB'],
    [999_600, '1.00 MB'],
    [352_494_542_848, '352 GB'],
    [-2e9, '-2.00 GB'],
    [Infinity, 'unlimited'],
  ])('%d is %s', (bytes, text) => expect(formatSize(bytes)).toBe(text));
});
