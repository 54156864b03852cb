import { ConfigError, describeValue, HUB_SIZES, parseSizeText } from '@q/config';

/**
 * Bytes of a size such as `'5GB'` (10^9), `'2GiB'` (2^30), `'500MB'`, `'1.5GB'` or a plain number of bytes; case does
 * not matter. Fractions of a byte are cut off.
 * @param name the option, for the error
 * @throws ConfigError for anything else, and for sizes below one byte.
 */
export function parseByteSize(size: string | number, name = 'size'): number {
  const bytes = parseSizeText(size, HUB_SIZES);
  if (bytes !== undefined && Number.isSafeInteger(bytes)) return bytes;
  throw new ConfigError(name, `${describeValue(size)} is not a size`, {
    fix: 'write a number of bytes or a text such as "5GB", "500MB" or "2GiB"',
  });
}
