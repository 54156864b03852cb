// Filters of text and numbers, by jinja2's filters.py; tojson as transformers' chat_template_utils.py.
import type { Budget } from './budget.js';
import type { BuiltIn } from './built-in.js';
import { numberOf } from './compare.js';
import { fail } from './errors.js';
import { percentFormat } from './format.js';
import { negate, truncate } from './operators.js';
import { findLast } from './search.js';
import { capitalize, padText, replaceText } from './string-methods.js';
import { splitLines } from './string-split.js';
import { dumps, joined, str } from './text.js';
import {
  asIndex,
  asText,
  codePoints,
  defined,
  Dict,
  Float,
  isList,
  iterate,
  Tuple,
  truthy,
  typeName,
  Undefined,
  type Value,
} from './values.js';
import { trim } from './whitespace.js';

type Filter = BuiltIn<Value>;

const change = (run: (text: string) => string): Filter => ({
  parameters: [],
  run: (budget, value) => {
    const text = str(value, budget);
    budget.write(text.length * 3);
    return run(text);
  },
});

const htmlEscapes: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  "'": '&#39;',
  '"': '&#34;',
};
const escape = change((text) => text.replace(/[&<>'"]/g, (character) => htmlEscapes[character]));

/** Words begin behind white space, brackets and hyphens. */
const title = (text: string): string =>
  text.replace(/[^-\s({[<]+/g, (word) => {
    const first = String.fromCodePoint(word.codePointAt(0)!);
    return first.toUpperCase() + word.slice(first.length).toLowerCase();
  });

const stripTags = (text: string): string =>
  trim(without(without(text, '<!--', '-->'), '<', '>'))
    .split(/\s+/)
    .join(' ');

/** A text without what stands between two marks; an opening mark that is not closed stays. Linear. */
function without(text: string, open: string, close: string): string {
  const parts: string[] = [];
  let end = 0;
  for (let at = text.indexOf(open); at >= 0; at = text.indexOf(open, end)) {
    const stop = text.indexOf(close, at + open.length);
    if (stop < 0) break;
    parts.push(text.slice(end, at));
    end = stop + close.length;
  }
  return [...parts, text.slice(end)].join('');
}

function quote(text: string, keepSlash: boolean, budget: Budget): string {
  budget.write(text.length * 3);
  const escaped = encodeURIComponent(text.replace(/[\ud800-\udfff]/gu, '\ufffd')).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return keepSlash ? escaped.replaceAll('%2F', '/') : escaped.replaceAll('%20', '+');
}

function urlencode(budget: Budget, value: Value): string {
  if (typeof value === 'string' || (!isList(value) && !(value instanceof Dict) && !(value instanceof Tuple)))
    return quote(str(value, budget), true, budget);
  const pairs = value instanceof Dict ? value.items() : iterate(value, budget).map((pair) => iterate(pair, budget));
  const parts = pairs.map(([key, item]) =>
    [key, item].map((part) => quote(str(part, budget), false, budget)).join('='),
  );
  return joined(parts, '&', budget);
}

function indent(budget: Budget, value: Value, width: Value = 4, first: Value = false, blank: Value = false): string {
  const spaces = typeof width === 'string' ? width : padText('', asIndex(width, 'the width'), ' ', '<', budget);
  const lines = splitLines(`${asText(value, 'the text')}\n`, false, budget);
  budget.step(lines.length);
  const indented = lines.map((line, i) => (i > 0 && (line !== '' || truthy(blank)) ? [spaces, line] : [line]));
  if (truthy(first)) indented[0]?.unshift(spaces);
  budget.write(indented.reduce((sum, parts) => sum + parts.reduce((length, part) => length + part.length, 1), 0));
  return indented.map((parts) => parts.join('')).join('\n');
}

function truncateText(
  budget: Budget,
  value: Value,
  length: Value = 255,
  killWords: Value = false,
  end: Value = '...',
  leeway: Value = null,
): string {
  const text = asText(value, 'the text');
  const [most, tail] = [asIndex(length, 'length'), asText(end, 'end')];
  const slack = leeway === null ? 5 : asIndex(leeway, 'leeway');
  const kept = most - codePoints(tail);
  if (kept < 0 || slack < 0) fail(`truncate: length must be at least that of end, leeway not negative`);
  budget.write(text.length * 4);
  if (codePoints(text) <= most + slack) return text;
  const start = [...text].slice(0, kept).join('');
  const space = truthy(killWords) ? -1 : findLast(start, ' ', budget);
  return (space < 0 ? start : start.slice(0, space)) + tail;
}

/** As int(text, base); undefined when it is no whole number. */
function parseInteger(text: string, base: number): number | bigint | undefined {
  const digits = trim(text).replace(/(?<=[\da-z])_(?=[\da-z])/gi, '');
  const [, sign, prefix = '', body] = /^([-+]?)(0[xob])?([\da-z]+)$/i.exec(digits) ?? [];
  if (body === undefined || body.length > 1000) return undefined;
  const bases: Readonly<Record<string, number>> = { '0x': 16, '0o': 8, '0b': 2 };
  const radix = prefix ? bases[prefix.toLowerCase()] : base || 10;
  if (prefix && base !== 0 && base !== radix) return undefined;
  const values = [...body.toLowerCase()].map((digit) => parseInt(digit, 36));
  if (values.some((digit) => digit >= radix)) return undefined;
  const number = values.reduce((sum, digit) => sum * BigInt(radix) + BigInt(digit), 0n);
  const signed = sign === '-' ? -number : number;
  return Number.isSafeInteger(Number(signed)) ? Number(signed) : signed;
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
    budget.read(value.length * 4);
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

function tojson(
  budget: Budget,
  value: Value,
  ensureAscii: Value = false,
  indentation: Value = null,
  separators: Value = null,
  sortKeys: Value = false,
): string {
  const pad =
    indentation === null || typeof indentation === 'string'
      ? (indentation ?? undefined)
      : padText('', asIndex(indentation, 'indent'), ' ', '<', budget);
  const given = separators === null ? undefined : iterate(separators, budget);
  if (given && given.length !== 2) fail('separators must be two texts');
  const [itemSeparator, keySeparator] = given?.map((text) => asText(text, 'a separator')) ?? [
    pad === undefined ? ', ' : ',',
    ': ',
  ];
  const style = {
    ensureAscii: truthy(ensureAscii),
    indent: pad,
    itemSeparator,
    keySeparator,
    sortKeys: truthy(sortKeys),
  };
  return dumps(value, style, '', budget);
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

const identity: Filter = { parameters: [], run: (budget, value) => str(value, budget) };

export const textFilters: readonly (readonly [string, Filter])[] = [
  ['upper', change((text) => text.toUpperCase())],
  ['lower', change((text) => text.toLowerCase())],
  ['title', change(title)],
  ['capitalize', change(capitalize)],
  ['e', escape],
  ['escape', escape],
  ['forceescape', escape],
  ['striptags', change(stripTags)],
  ['safe', identity],
  ['string', identity],
  ['urlencode', { parameters: [], run: urlencode }],
  [
    'trim',
    {
      parameters: ['chars'],
      run: (budget, value, chars = null) => {
        const text = str(value, budget);
        budget.write(text.length);
        return trim(text, chars === null ? undefined : new Set(asText(chars, 'strip arg')));
      },
    },
  ],
  [
    'replace',
    {
      parameters: ['old', 'new', 'count'],
      required: 2,
      run: (budget, value, old, by, count = null) =>
        replaceText(
          str(value, budget),
          str(old!, budget),
          str(by!, budget),
          count === null ? -1 : asIndex(count, 'count'),
          budget,
        ),
    },
  ],
  ['indent', { parameters: ['width', 'first', 'blank'], run: indent }],
  ['truncate', { parameters: ['length', 'killwords', 'end', 'leeway'], run: truncateText }],
  [
    'center',
    {
      parameters: ['width'],
      run: (budget, value, width = 80) => padText(str(value, budget), asIndex(width, 'width'), ' ', '^', budget),
    },
  ],
  [
    'wordcount',
    {
      parameters: [],
      run: (budget, value) => {
        const text = str(value, budget);
        budget.step(text.length);
        return text.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0;
      },
    },
  ],
  ['int', { parameters: ['default', 'base'], run: toInteger }],
  ['float', { parameters: ['default'], run: toFloat }],
  ['abs', { parameters: [], run: abs }],
  ['round', { parameters: ['precision', 'method'], run: round }],
  ['filesizeformat', { parameters: ['binary'], run: filesize }],
  ['tojson', { parameters: ['ensure_ascii', 'indent', 'separators', 'sort_keys'], run: tojson }],
];

/** `value|format(...)`: `%` with all arguments. */
export function formatFilter(budget: Budget, value: Value, positional: readonly Value[], named: Dict): string {
  if (positional.length > 0 && named.size > 0) fail("can't handle positional and keyword arguments at the same time");
  return percentFormat(str(value, budget), named.size > 0 ? named : new Tuple(positional), budget);
}
