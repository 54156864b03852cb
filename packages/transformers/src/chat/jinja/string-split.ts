// split, rsplit, splitlines and partition of str.
import type { BuiltIn } from './built-in.js';
import type { Budget } from './budget.js';
import { fail } from './errors.js';
import { find, findAll, findLast } from './search.js';
import { asIndex, asText, truthy, Tuple, type Value } from './values.js';
import { isSpace, trimEnd, trimStart } from './whitespace.js';

/** Words between white space. @param most most splits; the rest of the text is the last word */
function words(text: string, most: number, budget: Budget): string[] {
  budget.step(text.length / 8);
  const found: string[] = [];
  let rest = trimStart(text);
  while (rest !== '' && found.length < most) {
    let end = 0;
    while (end < rest.length && !isSpace(rest[end])) end++;
    found.push(rest.slice(0, end));
    budget.step(4);
    let next = end;
    while (next < rest.length && isSpace(rest[next])) next++;
    rest = rest.slice(next);
  }
  if (rest !== '') found.push(rest);
  return found;
}

/** As {@link words}, splitting from the right. */
function wordsFromRight(text: string, most: number, budget: Budget): string[] {
  budget.step(text.length / 8);
  const found: string[] = [];
  let rest = trimEnd(text);
  while (rest !== '' && found.length < most) {
    let start = rest.length;
    while (start > 0 && !isSpace(rest[start - 1])) start--;
    found.push(rest.slice(start));
    budget.step(4);
    rest = trimEnd(rest.slice(0, start));
  }
  if (rest !== '') found.push(rest);
  return found.reverse();
}

function pieces(text: string, places: readonly number[], width: number, budget: Budget): string[] {
  budget.write(text.length);
  let end = 0;
  const parts = places.map((at) => {
    const part = text.slice(end, at);
    end = at + width;
    return part;
  });
  return [...parts, text.slice(end)];
}

const splitter = (fromRight: boolean): BuiltIn<string> => ({
  parameters: ['sep', 'maxsplit'],
  run: (budget, text, separator = null, maxsplit = -1) => {
    const limit = asIndex(maxsplit, 'maxsplit');
    const most = limit < 0 ? Infinity : limit;
    if (separator === null) return (fromRight ? wordsFromRight : words)(text, most, budget);
    const wanted = asText(separator, 'the separator');
    if (wanted === '') return fail('empty separator');
    if (!fromRight || most === Infinity)
      return pieces(text, findAll(text, wanted, most, budget), wanted.length, budget);
    return fromEnd(text, wanted, most, budget);
  },
});

/** At most so many splits, counted from the end. */
function fromEnd(text: string, wanted: string, most: number, budget: Budget): string[] {
  const parts: string[] = [];
  let rest = text;
  while (parts.length < most) {
    const at = findLast(rest, wanted, budget);
    if (at < 0) break;
    parts.push(rest.slice(at + wanted.length));
    budget.step(4);
    rest = rest.slice(0, at);
  }
  return [rest, ...parts.reverse()];
}

// eslint-disable-next-line no-control-regex -- file, group and record separators end lines in Python
const LINE = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/g;

/** As str.splitlines. */
export function splitLines(text: string, keepEnds: boolean, budget: Budget): string[] {
  budget.write(text.length);
  const lines: string[] = [];
  let end = 0;
  for (const match of text.matchAll(LINE)) {
    budget.step(4);
    const next = match.index + match[0].length;
    lines.push(text.slice(end, keepEnds ? next : match.index));
    end = next;
  }
  if (end < text.length) lines.push(text.slice(end));
  return lines;
}

const partition = (fromRight: boolean): BuiltIn<string> => ({
  parameters: ['sep'],
  required: 1,
  run: (budget, text, separator) => {
    const wanted = asText(separator!, 'the separator');
    if (wanted === '') return fail('empty separator');
    const at = fromRight ? findLast(text, wanted, budget) : find(text, wanted, 0, budget);
    budget.write(text.length);
    if (at < 0) return new Tuple(fromRight ? ['', '', text] : [text, '', '']);
    return new Tuple([text.slice(0, at), wanted, text.slice(at + wanted.length)]);
  },
});

export const splitMethods: readonly (readonly [string, BuiltIn<string>])[] = [
  ['split', splitter(false)],
  ['rsplit', splitter(true)],
  [
    'splitlines',
    {
      parameters: ['keepends'],
      run: (budget, text, keepEnds: Value = false) => splitLines(text, truthy(keepEnds), budget),
    },
  ],
  ['partition', partition(false)],
  ['rpartition', partition(true)],
];
