// Filters of text, by jinja2's filters.py; tojson as transformers' chat_template_utils.py.
import type { Budget } from './budget.js';
import type { BuiltIn } from './built-in.js';
import { fail } from './errors.js';
import { percentFormat } from './format.js';
import { findLast } from './search.js';
import { capitalize } from './letters.js';
import { padText, replaceText } from './string-methods.js';
import { splitLines } from './string-split.js';
import { dumps, joined, str } from './text.js';
import { asIndex, asText, codePoints, Dict, isList, iterate, Tuple, truthy, type Value } from './values.js';
import { trim } from './whitespace.js';

type Filter = BuiltIn<Value>;

const change = (run: (text: string) => string, weight = 3): Filter => ({
  parameters: [],
  run: (budget, value) => {
    const text = str(value, budget);
    budget.write(text.length * weight);
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
  budget.read(tail.length * 4);
  const kept = most - codePoints(tail);
  if (kept < 0 || slack < 0) fail(`truncate: length must be at least that of end, leeway not negative`);
  budget.write(text.length * 4);
  if (codePoints(text) <= most + slack) return text;
  const start = [...text].slice(0, kept).join('');
  const space = truthy(killWords) ? -1 : findLast(start, ' ', budget);
  return (space < 0 ? start : start.slice(0, space)) + tail;
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

const identity: Filter = { parameters: [], run: (budget, value) => str(value, budget) };

export const textFilters: readonly (readonly [string, Filter])[] = [
  ['upper', change((text) => text.toUpperCase())],
  ['lower', change((text) => text.toLowerCase())],
  ['title', change(title, 16)],
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
        if (chars === null) return trim(text);
        const set = asText(chars, 'strip arg');
        budget.step(set.length);
        return trim(text, new Set(set));
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
  ['tojson', { parameters: ['ensure_ascii', 'indent', 'separators', 'sort_keys'], run: tojson }],
];

/** `value|format(...)`: `%` with all arguments. */
export function formatFilter(budget: Budget, value: Value, positional: readonly Value[], named: Dict): string {
  if (positional.length > 0 && named.size > 0) fail("can't handle positional and keyword arguments at the same time");
  return percentFormat(str(value, budget), named.size > 0 ? named : new Tuple(positional), budget);
}
