// Format specifications: widths, precisions, signs and types of what is put into a text.
import { MAX_TEMPLATE_WIDTH } from '../../limits.js';
import type { Budget } from './budget.js';
import { numberOf } from './compare.js';
import { fail, LimitError } from './errors.js';
import { floatText, str } from './text.js';
import { codePoints, Float, typeName, type Value } from './values.js';

export interface Specification {
  readonly fill?: string;
  readonly align?: string;
  readonly sign?: string;
  readonly alternate: boolean;
  readonly group?: string;
  readonly width: number;
  readonly precision?: number;
  readonly type: string;
}

export function limitedWidth(digits: string | undefined): number {
  const width = Number(digits ?? 0);
  if (width > MAX_TEMPLATE_WIDTH)
    throw new LimitError(`the chat template formats to a width of more than ${MAX_TEMPLATE_WIDTH}`);
  return width;
}

export function pad(text: string, { fill = ' ', align = '<', width }: Specification): string {
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

/** Digits in threes, counted from the last. */
function grouped(digits: string, separator: string): string {
  const first = digits.length % 3 || 3;
  return [digits.slice(0, first), ...(digits.slice(first).match(/.{3}/g) ?? [])].join(separator);
}

export function formatNumber(value: Value, specification: Specification): string {
  const number = numberOf(value)!;
  let digits = numberDigits(number, value instanceof Float, specification);
  if (specification.group) {
    const [whole, ...rest] = digits.split(/(?=[.e%])/);
    digits = [grouped(whole, specification.group), ...rest].join('');
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
    return pad(cut(value, specification.precision, budget), specification);
  }
  if (typeof value === 'bigint') budget.bigInteger('text');
  if (numberOf(value) === undefined) return fail(`unsupported format string passed to ${typeName(value)}.__format__`);
  return formatNumber(value, specification);
}

/** At most so many characters. */
export function cut(text: string, precision: number | undefined, budget: Budget): string {
  budget.read(text.length);
  return precision === undefined ? text : [...text.slice(0, 2 * precision)].slice(0, precision).join('');
}
