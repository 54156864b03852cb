// Texts with holes: `%` of str, str.format and format specifications, as far as templates go.
import type { Budget } from './budget.js';
import { numberOf } from './compare.js';
import { fail, LimitError } from './errors.js';
import { floatText, repr, str } from './text.js';
import {
  codePoints,
  defined,
  Dict,
  Float,
  isInteger,
  lengthOf,
  Tuple,
  typeName,
  type Keywords,
  type Value,
} from './values.js';

/** Widths and precisions past this are refused: a template pads with a few spaces. */
const MAX_WIDTH = 1000;

interface Specification {
  readonly fill?: string;
  readonly align?: string;
  readonly sign?: string;
  readonly alternate: boolean;
  readonly group?: string;
  readonly width: number;
  readonly precision?: number;
  readonly type: string;
}

function limitedWidth(digits: string | undefined): number {
  const width = Number(digits ?? 0);
  if (width > MAX_WIDTH) throw new LimitError(`the chat template formats to a width of more than ${MAX_WIDTH}`);
  return width;
}

function pad(text: string, { fill = ' ', align = '<', width }: Specification): string {
  const missing = width - codePoints(text);
  if (missing <= 0) return text;
  if (align === '<') return text + fill.repeat(missing);
  if (align === '>') return fill.repeat(missing) + text;
  if (align === '^') return fill.repeat(missing >> 1) + text + fill.repeat(missing - (missing >> 1));
  const sign = /^[-+ ]/.test(text) ? text[0] : '';
  return sign + fill.repeat(missing) + text.slice(sign.length);
}

const exponent = (text: string): string => text.replace(/e([-+])(\d)$/, 'e$10$2');

/** Digits of a float, without sign. */
function floatDigits(x: number, type: string, precision: number): string {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? 'nan' : 'inf';
  if (type === 'e') return exponent(x.toExponential(Math.min(precision, 100)));
  if (type !== 'g') return roundedFixed(x, precision);
  const significant = Math.min(Math.max(precision, 1), 100);
  const power = x === 0 ? 0 : Number(x.toExponential(significant - 1).split('e')[1]);
  if (power < -4 || power >= significant) return exponent(x.toExponential(significant - 1).replace(/\.?0+e/, 'e'));
  const fixed = x.toFixed(Math.max(0, significant - 1 - power));
  return fixed.includes('.') ? fixed.replace(/\.?0+$/, '') : fixed;
}

/** As toFixed, also for numbers that it writes with an exponent. */
function roundedFixed(x: number, precision: number): string {
  if (x < 1e21) return evenFixed(x, Math.min(precision, 100));
  return BigInt(x).toString() + (precision > 0 ? `.${'0'.repeat(precision)}` : '');
}

/** toFixed rounds exact halves up, Python to even. */
function evenFixed(x: number, precision: number): string {
  const fixed = x.toFixed(precision);
  const scaled = x * 10 ** precision;
  const half = precision <= 15 && scaled % 1 === 0.5 && scaled / 10 ** precision === x;
  return half && Math.floor(scaled) % 2 === 0 ? (Math.floor(scaled) / 10 ** precision).toFixed(precision) : fixed;
}

const bases: Readonly<Record<string, readonly [number, string]>> = {
  b: [2, '0b'],
  o: [8, '0o'],
  x: [16, '0x'],
};

function numberDigits(value: number | bigint, isFloat: boolean, specification: Specification): string {
  const { type, precision, alternate } = specification;
  const kind = type.toLowerCase();
  const magnitude = value < 0 ? -value : value;
  if (Object.hasOwn(bases, kind) && !isFloat) {
    const [base, prefix] = bases[kind];
    return (alternate ? prefix : '') + magnitude.toString(base);
  }
  if ('efg%'.includes(kind || '?')) {
    const scaled = Number(magnitude) * (kind === '%' ? 100 : 1);
    return floatDigits(scaled, kind, precision ?? 6) + (kind === '%' ? '%' : '');
  }
  if (isFloat && (kind === '' || kind === 'n'))
    return precision === undefined ? floatText(Number(magnitude)) : floatDigits(Number(magnitude), 'g', precision);
  if (kind === '' || kind === 'd' || kind === 'n') return magnitude.toString();
  return fail(`Unknown format code '${type}'`);
}

function formatNumber(value: Value, specification: Specification): string {
  const number = numberOf(value)!;
  let digits = numberDigits(number, value instanceof Float, specification);
  if (specification.group) {
    const [whole, ...rest] = digits.split(/(?=[.e%])/);
    digits = [whole.replace(/\B(?=(\d{3})+$)/g, specification.group), ...rest].join('');
  }
  if (/[EFGX]/.test(specification.type)) digits = digits.toUpperCase();
  const negative = number < 0 || Object.is(number, -0);
  const sign = negative ? '-' : specification.sign === '+' || specification.sign === ' ' ? specification.sign : '';
  return pad(sign + digits, { ...specification, align: specification.align ?? '>' });
}

const SPECIFICATION = /^(?:(.)?([<>=^]))?([-+ ])?(#)?(0)?(\d*)([,_])?(?:\.(\d+))?([bdeEfFgGnosxX%])?$/su;

/** As format(value, specification). */
export function formatValue(value: Value, text: string, budget: Budget): string {
  if (text === '') return str(value, budget);
  const match = SPECIFICATION.exec(text) ?? fail(`Invalid format specifier '${text}'`);
  const [, fill, align, sign, alternate, zero, width, group, precision, type = ''] = match;
  const specification: Specification = {
    fill: fill ?? (zero ? '0' : undefined),
    align: align ?? (zero ? '=' : undefined),
    sign,
    alternate: alternate !== undefined,
    group,
    width: limitedWidth(width),
    precision: precision === undefined ? undefined : limitedWidth(precision),
    type,
  };
  if (typeof value === 'string') {
    if (type !== '' && type !== 's') fail(`Unknown format code '${type}' for object of type 'str'`);
    return pad(cut(value, specification.precision), specification);
  }
  if (numberOf(value) === undefined) return fail(`unsupported format string passed to ${typeName(value)}.__format__`);
  return formatNumber(value, specification);
}

const cut = (text: string, precision: number | undefined): string =>
  precision === undefined ? text : [...text.slice(0, 2 * precision)].slice(0, precision).join('');

/** Gathers parts of a text, within the limits. */
class Parts {
  text = '';

  constructor(private readonly budget: Budget) {}

  add(part: string): void {
    this.budget.write(part.length);
    this.budget.fits(this.text.length + part.length);
    this.text += part;
  }
}

// The counts keep the search linear: without them a text of nothing but `%(` or `%000...` takes its square.
const PERCENT = /%(?:\(([^)]{0,64})\))?([-+ #0]{0,8})(\*|\d{0,6})(?:\.(\*|\d{0,6}))?([a-zA-Z%])/g;

function percentSpecification(
  flags: string,
  width: string,
  precision: string | undefined,
  type: string,
): Specification {
  if (width === '*' || precision === '*') fail('a width of * in a % format is not supported');
  const zero = flags.includes('0') && !flags.includes('-') && !'sra'.includes(type);
  return {
    fill: zero ? '0' : ' ',
    align: flags.includes('-') ? '<' : zero ? '=' : '>',
    sign: flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : undefined,
    alternate: flags.includes('#'),
    width: limitedWidth(width),
    precision: precision === undefined ? undefined : limitedWidth(precision),
    type: type === 'i' || type === 'u' ? 'd' : type,
  };
}

function percentValue(value: Value, specification: Specification, budget: Budget): string {
  const { type, precision } = specification;
  if ('sra'.includes(type))
    return pad(cut(type === 's' ? str(value, budget) : repr(value, budget), precision), specification);
  const number = numberOf(defined(value));
  if (type === 'c')
    return pad(typeof value === 'number' ? String.fromCodePoint(value) : str(value, budget), specification);
  if (number === undefined || !'doxXeEfFgG'.includes(type))
    return fail(`%${type} format: a real number is required, not ${typeName(value)}`);
  if (!'doxX'.includes(type)) return formatNumber(new Float(Number(number)), specification);
  return formatNumber(isInteger(value) ? value : Math.trunc(Number(number)), {
    ...specification,
    precision: undefined,
  });
}

/** `text % value`. */
export function percentFormat(text: string, value: Value, budget: Budget): string {
  budget.step(text.length);
  const values = value instanceof Tuple ? value.items : [value];
  const parts = new Parts(budget);
  let used = 0;
  let end = 0;
  for (const match of text.matchAll(PERCENT)) {
    const [all, key, flags, width, precision, type] = match;
    parts.add(literal(text.slice(end, match.index)));
    end = match.index + all.length;
    if (type === '%') {
      parts.add('%');
      continue;
    }
    const item =
      key === undefined ? values[used++] : value instanceof Dict ? value.get(key) : fail('format requires a mapping');
    if (item === undefined) fail(key === undefined ? 'not enough arguments for format string' : `'${key}'`);
    parts.add(percentValue(item!, percentSpecification(flags, width, precision, type), budget));
  }
  parts.add(literal(text.slice(end)));
  if (
    used < values.length &&
    !(value instanceof Dict) &&
    !(values.length === 1 && lengthOf(value) !== undefined && typeof value !== 'string' && !(value instanceof Tuple))
  )
    fail('not all arguments converted during string formatting');
  return parts.text;
}

const literal = (text: string): string => (text.includes('%') ? fail('unsupported format character') : text);

const FIELD = /\{\{|\}\}|\{([^{}!:]*)(?:!([rsa]))?(?::([^{}]*))?\}|[{}]/g;

/** How a field reads `name.attribute` and `name[item]`. */
export interface FieldReader {
  readonly attribute: (object: Value, name: string, budget: Budget) => Value;
  readonly item: (object: Value, index: Value, budget: Budget) => Value;
}

interface Fields {
  readonly positional: readonly Value[];
  readonly named: Keywords;
  readonly read: FieldReader;
}

function fieldValue(field: string, at: number, { positional, named, read }: Fields, budget: Budget): Value {
  const [, name, path] = /^([^.[]*)(.*)$/s.exec(field)!;
  const key = name === '' ? String(at) : name;
  let value = /^\d+$/.test(key) ? positional[Number(key)] : named.get(key);
  if (value === undefined) return fail(`'${key}' is missing for str.format`);
  for (const [, attribute, index] of path.matchAll(/\.([^.[]+)|\[([^\]]*)\]/g))
    value = attribute
      ? read.attribute(value, attribute, budget)
      : read.item(value, /^\d+$/.test(index) ? Number(index) : index, budget);
  return value;
}

/** `text.format(...)`. */
export function formatText(
  text: string,
  positional: readonly Value[],
  named: Keywords,
  read: FieldReader,
  budget: Budget,
): string {
  budget.read(text.length);
  const parts = new Parts(budget);
  let automatic = 0;
  let end = 0;
  for (const match of text.matchAll(FIELD)) {
    const [all, field, conversion, specification = ''] = match;
    parts.add(text.slice(end, match.index));
    end = match.index + all.length;
    if (all === '{{' || all === '}}') parts.add(all[0]);
    else if (all.length === 1) fail(`Single '${all}' encountered in format string`);
    else {
      const value = fieldValue(field, automatic, { positional, named, read }, budget);
      if (/^(?:$|[.[])/.test(field)) automatic++;
      const converted =
        conversion === undefined ? value : conversion === 's' ? str(value, budget) : repr(value, budget);
      parts.add(formatValue(converted, specification, budget));
    }
  }
  parts.add(text.slice(end));
  return parts.text;
}
