// JSON text as Python's json.dumps writes it, so that files equal those of transformers byte for byte.
import { ConfigError } from './errors.js';

/** A number that Python holds as a float: `new PythonFloat(1)` is written `1.0`. */
export class PythonFloat {
  constructor(readonly value: number) {}
}

export interface PythonJsonOptions {
  /** Spaces per level; without it everything stays on one line, separated by `, ` and `: `. */
  indent?: number;
  /** Sort the keys of objects by code point. Default false. */
  sortKeys?: boolean;
  /** Write other than ASCII characters as \uXXXX, Python's own default. Default false: they are kept. */
  ensureAscii?: boolean;
  /**
   * Whether Python holds a number as a float, by its key (in a list that of the list) and its path (keys and indices,
   * `/` between them). Default: what is no whole number, and -0.
   */
  isFloat?: (value: number, key: string, path: string) => boolean;
}

/** Python's `repr` of a float: the shortest digits that read back, exponent form below 1e-4 and from 1e16. */
export function pythonFloat(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? 'Infinity' : '-Infinity';
  if (value === 0) return Object.is(value, -0) ? '-0.0' : '0.0';
  const [mantissa, power] = value.toExponential().split('e');
  const exponent = Number(power);
  const sign = mantissa.startsWith('-') ? '-' : '';
  const digits = mantissa.replace('-', '').replace('.', '');
  if (exponent < -4 || exponent >= 16) {
    const tail = digits.length > 1 ? `.${digits.slice(1)}` : '';
    return `${sign}${digits[0]}${tail}e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`;
  }
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, '0');
  return `${sign}${whole}.${digits.slice(exponent + 1) || '0'}`;
}

/** Python's (and Rust's) order of strings, which for characters beyond U+FFFF is not JavaScript's. */
export const compareCodePoints = (a: string, b: string): number => {
  for (let i = 0; i < a.length && i < b.length; i++) {
    if (a[i] === b[i]) continue;
    const [x, y] = [a.codePointAt(i)!, b.codePointAt(i)!];
    // A low surrogate after an equal high one compares as the pair does.
    return x - y;
  }
  return a.length - b.length;
};

const escapeUnit = (c: string) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`;

function text(value: string, ascii: boolean): string {
  const quoted = JSON.stringify(value);
  // eslint-disable-next-line no-control-regex
  return ascii ? quoted.replace(/[^\x00-\x7e]/g, escapeUnit) : quoted;
}

const isFraction = (value: number): boolean => !Number.isInteger(value) || Object.is(value, -0);

/**
 * `json.dumps(value, indent, sort_keys, ensure_ascii)`. Whole numbers are written as integers, bigints too; wrap a
 * number in PythonFloat where Python has a float. Keys with the value `undefined` are left out.
 * @throws ConfigError for values that JSON does not have (functions, symbols)
 */
export function pythonJson(value: unknown, options: PythonJsonOptions = {}): string {
  const { indent, sortKeys = false, ensureAscii = false, isFloat = isFraction } = options;
  const write = (item: unknown, key: string, path: string, depth: number): string => {
    if (item === null || typeof item === 'boolean' || typeof item === 'bigint') return String(item);
    if (typeof item === 'string') return text(item, ensureAscii);
    if (typeof item === 'number') return isFloat(item, key, path) ? pythonFloat(item) : BigInt(item).toString();
    if (item instanceof PythonFloat) return pythonFloat(item.value);
    if (typeof item !== 'object') throw new ConfigError('json', `a ${typeof item} cannot be written as JSON`);
    const below = (name: string | number) => (path === '' ? String(name) : `${path}/${name}`);
    if (Array.isArray(item))
      return list(
        '[]',
        item.map((element, i) => write(element, key, below(i), depth + 1)),
        depth,
      );
    const entries = Object.entries(item).filter(([, child]) => child !== undefined);
    if (sortKeys) entries.sort(([a], [b]) => compareCodePoints(a, b));
    return list(
      '{}',
      entries.map(([name, child]) => `${text(name, ensureAscii)}: ${write(child, name, below(name), depth + 1)}`),
      depth,
    );
  };
  const list = ([open, close]: string, parts: string[], depth: number): string => {
    if (parts.length === 0) return open + close;
    if (indent === undefined) return open + parts.join(', ') + close;
    const pad = '\n' + ' '.repeat(indent * (depth + 1));
    return `${open}${pad}${parts.join(`,${pad}`)}\n${' '.repeat(indent * depth)}${close}`;
  };
  return write(value, '', '', 0);
}

/**
 * The text of a JSON file as transformers writes configs and indexes: two spaces, sorted keys, ASCII, a newline at the
 * end.
 */
export const pythonJsonFile = (value: unknown, options: PythonJsonOptions = {}): string =>
  `${pythonJson(value, { indent: 2, sortKeys: true, ensureAscii: true, ...options })}\n`;
