import { ConfigError } from '@q/config';

const units: Readonly<Record<string, number>> = { gib: 2 ** 30, mib: 2 ** 20, kib: 2 ** 10, gb: 1e9, mb: 1e6, kb: 1e3 };
const pattern = /^\s*([+-]?(?:\d+(?:_\d+)*\.?(?:\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:e[+-]?\d+)?)\s*([gmk]i?b)$/i;

/**
 * Bytes of a size: an integer is bytes; text has a unit, `KB MB GB` (powers of 1000) or `KiB MiB GiB` (powers of 1024),
 * in any case. A lower-case `b` after K, M or G without the `i` means bits: `"8Gb"` is 1e9 bytes. Fractions of a byte
 * are cut off. Source: accelerate `convert_file_size_to_int`.
 * @param name what it is the size of, for the error
 * @throws ConfigError (`fields.rule` is `invalid_size`) for anything else, also negative and infinite sizes
 */
export const parseSize = (size: number | string, name?: string): number => {
  const bytes = typeof size === 'number' ? size : textBytes(size);
  if (!Number.isInteger(bytes) || bytes < 0) {
    throw new ConfigError('parseSize', name === undefined ? 'not a size' : `${name} is not a size`, {
      rule: 'invalid_size',
      size,
      why: 'a size is a non-negative integer of bytes or a number with a unit',
      fix: 'write for example "10GiB", "1.5GB" or 1500000000',
    });
  }
  return bytes;
};

const textBytes = (text: string): number => {
  const [, amount, unit] = pattern.exec(text) ?? [];
  if (amount === undefined || unit === undefined) return NaN;
  const bytes = Math.trunc(Number(amount.replaceAll('_', '')) * units[unit.toLowerCase()]!);
  const bits = unit.length === 2 && unit.endsWith('b');
  return (bits ? Math.floor(bytes / 8) : bytes) || 0;
};

const scale = ['B', 'KB', 'MB', 'GB', 'TB'];

/** A size for people, in powers of 1000 with three significant digits: `1.50 GB`. */
export const formatSize = (bytes: number): string => {
  if (!Number.isFinite(bytes)) return 'unlimited';
  let value = Math.abs(bytes);
  let unit = 0;
  while (value >= 999.5 && unit < scale.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${bytes < 0 ? '-' : ''}${value.toFixed(digits)} ${scale[unit]}`;
};
