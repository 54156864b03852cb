import { ACCELERATE_SIZES, ConfigError, parseSizeText } from '@q/config';

/**
 * Bytes of a size: an integer is bytes; text has a unit, `KB MB GB` (powers of 1000) or `KiB MiB GiB` (powers of 1024),
 * in any case. A lower-case `b` after K, M or G without the `i` means bits: `"8Gb"` is 1e9 bytes. Fractions of a byte
 * are cut off. Source: accelerate `convert_file_size_to_int`.
 * @param name what it is the size of, for the error
 * @throws ConfigError (`fields.rule` is `invalid_size`) for anything else, also negative and infinite sizes
 */
export const parseSize = (size: number | string, name?: string): number => {
  const bytes = parseSizeText(size, ACCELERATE_SIZES);
  if (bytes === undefined) {
    throw new ConfigError('parseSize', name === undefined ? 'not a size' : `${name} is not a size`, {
      rule: 'invalid_size',
      size,
      why: 'a size is a non-negative integer of bytes or a number with a unit',
      fix: 'write for example "10GiB", "1.5GB" or 1500000000',
    });
  }
  return bytes;
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
