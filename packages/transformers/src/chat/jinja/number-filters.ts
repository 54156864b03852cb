// Filters of numbers, by jinja2's filters.py.
import type { Budget } from './budget.js';
import type { BuiltIn } from './built-in.js';
import { numberOf } from './compare.js';
import { fail } from './errors.js';
import { integer, negate, truncate } from './operators.js';
import { asIndex, defined, Float, truthy, typeName, Undefined, type Value } from './values.js';
import { trim } from './whitespace.js';

/** As int(text, base); undefined when it is no whole number. */
function parseInteger(text: string, base: number): number | bigint | undefined {
  const digits = trim(text).replace(/(?<=[\da-z])_(?=[\da-z])/gi, '');
  const [, sign, prefix = '', body] = /^([-+]?)(0[xob])?([\da-z]+)$/i.exec(digits) ?? [];
  if (body === undefined || body.length > 1000) return undefined;
  const bases: Readonly<Record<string, number>> = { '0x': 16, '0o': 8, '0b': 2 };
  if (base !== 0 && (base < 2 || base > 36)) return undefined;
  const radix = prefix ? bases[prefix.toLowerCase()] : base || 10;
  if (prefix && base !== 0 && base !== radix) return undefined;
  const values = [...body.toLowerCase()].map((digit) => parseInt(digit, 36));
  if (values.some((digit) => digit >= radix)) return undefined;
  const number = values.reduce((sum, digit) => sum * BigInt(radix) + BigInt(digit), 0n);
  const signed = sign === '-' ? -number : number;
  return integer(signed);
}

/** As float(text); undefined when it is no number. */
function parseFloatText(text: string): number | undefined {
  const trimmed = trim(text).toLowerCase();
  const special = /^([-+]?)(inf|infinity|nan)$/.exec(trimmed);
  if (special) return special[2] === 'nan' ? NaN : special[1] === '-' ? -Infinity : Infinity;
  if (trimmed.length > 1000) return undefined;
  return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/.test(trimmed) ? Number(trimmed) : undefined;
}

function toInteger(budget: Budget, value: Value, otherwise: Value = 0, base: Value = 10): Value {
  if (typeof value === 'string') {
    budget.step(value.length); // digit by digit, into an integer of any size
    const whole = parseInteger(value, asIndex(base, 'base'));
    if (whole !== undefined) return whole;
    const number = parseFloatText(value);
    return number !== undefined && Number.isFinite(number) ? truncate(number) : otherwise;
  }
  if (value instanceof Float) return Number.isFinite(value.value) ? truncate(value.value) : otherwise;
  return numberOf(value) ?? (value instanceof Undefined ? defined(value) : otherwise);
}

function toFloat(budget: Budget, value: Value, otherwise: Value = new Float(0)): Value {
  if (typeof value === 'string') budget.read(value.length * 4);
  const number = typeof value === 'string' ? parseFloatText(value) : numberOf(defined(value));
  return number === undefined ? otherwise : new Float(Number(number));
}

/** To the nearest, halves to even, as round(). */
function nearest(x: number, precision: number): number {
  if (precision >= 0) return Number(roundHalfEven(x, Math.min(precision, 100)));
  const unit = 10 ** -precision;
  return nearestWhole(x / unit) * unit;
}

const nearestWhole = (x: number): number => {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
};

const roundHalfEven = (x: number, precision: number): number =>
  precision === 0 || Math.abs(x) >= 1e21 ? nearestWhole(x) : Number(x.toFixed(precision));

function round(_: Budget, value: Value, precision: Value = 0, method: Value = 'common'): Value {
  const number = numberOf(defined(value)) ?? fail(`type ${typeName(value)} doesn't define __round__ method`);
  const digits = asIndex(precision, 'precision');
  if (Math.abs(digits) > 300) fail('the precision of round is too large');
  if (method !== 'common' && method !== 'ceil' && method !== 'floor') fail('method must be common, ceil or floor');
  if (method === 'common') {
    if (value instanceof Float) return new Float(nearest(value.value, digits));
    return digits >= 0 ? number : nearest(Number(number), digits);
  }
  const scaled = Number(number) * 10 ** digits;
  return new Float((method === 'ceil' ? Math.ceil(scaled) : Math.floor(scaled)) / 10 ** digits);
}

function abs(_: Budget, value: Value): Value {
  const number = numberOf(defined(value)) ?? fail(`bad operand type for abs(): '${typeName(value)}'`);
  if (value instanceof Float) return new Float(Math.abs(value.value));
  return number < 0 ? negate(number) : number;
}

function filesize(_: Budget, value: Value, binary: Value = false): string {
  const bytes = Number(numberOf(value) ?? fail('filesizeformat needs a number'));
  const base = truthy(binary) ? 1024 : 1000;
  if (bytes === 1) return '1 Byte';
  if (bytes < base) return `${Math.trunc(bytes)} Bytes`;
  const power = Math.min(8, Math.max(1, Math.floor(Math.log(bytes) / Math.log(base) + 1e-12)));
  return `${(bytes / base ** power).toFixed(1)} ${'kMGTPEZY'[power - 1].replace('k', base === 1024 ? 'K' : 'k')}${base === 1024 ? 'iB' : 'B'}`;
}

export const numberFilters: readonly (readonly [string, BuiltIn<Value>])[] = [
  ['int', { parameters: ['default', 'base'], run: toInteger }],
  ['float', { parameters: ['default'], run: toFloat }],
  ['abs', { parameters: [], run: abs }],
  ['round', { parameters: ['precision', 'method'], run: round }],
  ['filesizeformat', { parameters: ['binary'], run: filesize }],
];
