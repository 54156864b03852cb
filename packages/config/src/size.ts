// Sizes in bytes, as people write them.

/** What a text must look like to be a size, and what it means. */
export interface SizeRules {
  /** Number and unit. */
  readonly pattern: RegExp;
  /** A lower-case `b` after K, M or G without the `i` means bits. */
  readonly bits: boolean;
  /** Smallest size. */
  readonly least: number;
}

const decimals = ['', 'K', 'M', 'G', 'T'];

/** Bytes of a unit: `KB MB GB TB` are powers of 1000, with an `i` powers of 1024. */
const unitBytes = (unit: string): number => {
  const power = decimals.indexOf(unit.toUpperCase().replace(/I?B$/, ''));
  return (/ib$/i.test(unit) ? 1024 : 1000) ** power;
};

/** accelerate's `convert_file_size_to_int`: Python's numbers with K, M or G. */
export const ACCELERATE_SIZES: SizeRules = {
  pattern: /^\s*([+-]?(?:\d+(?:_\d+)*\.?(?:\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:e[+-]?\d+)?)\s*([gmk]i?b)$/i,
  bits: true,
  least: 0,
};

/** huggingface_hub's `parse_size_to_int`, and binary units: plain numbers with B, K, M, G or T. */
export const HUB_SIZES: SizeRules = {
  pattern: /^\s*(\d+(?:\.\d+)?)\s*(b|[kmgt]i?b)\s*$/i,
  bits: false,
  least: 1,
};

/**
 * Bytes of a size: a whole number is bytes, a text has a number and a unit. Fractions of a byte are cut off.
 * @returns undefined for what is no size by the rules
 */
export function parseSizeText(size: unknown, { pattern, bits, least }: SizeRules): number | undefined {
  const bytes = typeof size === 'number' ? size : typeof size === 'string' ? textBytes(size, pattern, bits) : NaN;
  return Number.isInteger(bytes) && bytes >= least ? bytes : undefined;
}

function textBytes(text: string, pattern: RegExp, bits: boolean): number {
  const [, amount, unit] = pattern.exec(text) ?? [];
  if (amount === undefined || unit === undefined) return NaN;
  const bytes = Math.trunc(Number(amount.replaceAll('_', '')) * unitBytes(unit));
  const inBits = bits && unit.length === 2 && unit.endsWith('b');
  return (inBits ? Math.floor(bytes / 8) : bytes) || 0;
}
