// Texts with holes: `%` of str, and str.format, as far as templates go.
import type { Budget } from './budget.js';
import { numberOf } from './compare.js';
import { fail } from './errors.js';
import { cut, formatNumber, formatValue, limitedWidth, pad, type Specification } from './specification.js';
import { repr, str } from './text.js';
import { defined, Dict, Float, isInteger, lengthOf, Tuple, typeName, type Keywords, type Value } from './values.js';

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

const characterOf = (code: number): string =>
  code >= 0 && code < 0x110000 ? String.fromCodePoint(code) : fail('%c arg not in range(0x110000)');

function percentValue(value: Value, specification: Specification, budget: Budget): string {
  const { type, precision } = specification;
  if ('sra'.includes(type))
    return pad(cut(type === 's' ? str(value, budget) : repr(value, budget), precision, budget), specification);
  const number = numberOf(defined(value));
  if (typeof number === 'bigint') budget.bigInteger('text');
  if (type === 'c') return pad(typeof value === 'number' ? characterOf(value) : str(value, budget), specification);
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
    !(values.length === 1 && typeof value !== 'string' && lengthOf(value) !== undefined && !(value instanceof Tuple))
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
