import { ConfigError, describeValue } from '@q/config';

const units: Record<string, number> = {
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

/**
 * Bytes of a size such as `'5GB'` (10^9), `'2GiB'` (2^30), `'500MB'`, `'1.5GB'` or a plain number of bytes; case does
 * not matter. Fractions of a byte are cut off.
 * @param name the option, for the error
 * @throws ConfigError for anything else, and for sizes below one byte.
 */
export function parseByteSize(size: string | number, name = 'size'): number {
  const fail = (): never => {
    throw new ConfigError(name, `${describeValue(size)} is not a size`, {
      fix: 'write a number of bytes or a text such as "5GB", "500MB" or "2GiB"',
    });
  };
  if (typeof size === 'number') return Number.isSafeInteger(size) && size > 0 ? size : fail();
  const match = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?b)\s*$/i.exec(size);
  const unit = match && units[match[2].toUpperCase()];
  const bytes = match && unit ? Math.floor(Number(match[1]) * unit) : 0;
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : fail();
}
