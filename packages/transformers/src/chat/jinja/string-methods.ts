// Methods of str: letters, places and paddings. Splitting is in string-split.ts.
import type { BuiltIn } from './built-in.js';
import type { Budget } from './budget.js';
import { fail } from './errors.js';
import { capitalize, isCase, swapCase, titleCase } from './letters.js';
import { find, findAll, findLast } from './search.js';
import { splitMethods } from './string-split.js';
import { joined } from './text.js';
import { asIndex, asText, codePoints, iterate, Tuple, type Value } from './values.js';
import { isSpace, trim, trimEnd, trimStart } from './whitespace.js';

type Method = BuiltIn<string>;

/** A method without arguments that reads and writes the whole text. */
const change = (run: (text: string) => string, weight = 3): Method => ({
  parameters: [],
  run: (budget, text) => {
    budget.write(text.length * weight);
    return run(text);
  },
});

/** A question about every character. */
const every = (pattern: RegExp): Method => ({
  parameters: [],
  run: (budget, text) => {
    budget.read(text.length * 4);
    return pattern.test(text);
  },
});

const strip = (run: (text: string, chars?: ReadonlySet<string>) => string): Method => ({
  parameters: ['chars'],
  run: (budget, text, chars) => {
    budget.write(text.length);
    if (chars === undefined || chars === null) return run(text);
    const set = asText(chars, 'strip arg');
    budget.step(set.length);
    return run(text, new Set(set));
  },
});

const affix = (name: string, test: (text: string, part: string) => boolean): Method => ({
  parameters: ['part', 'start', 'end'],
  required: 1,
  run: (budget, text, part, start, end) => {
    const whole = within(text, start, end, budget).text;
    const parts = part instanceof Tuple ? part.items : [part!];
    budget.step(parts.length);
    return parts.some((item) => {
      const wanted = asText(item, `${name} first arg`);
      budget.read(wanted.length);
      return test(whole, wanted);
    });
  },
});

/** The part of a text between two places, and the offset of its start in characters. */
function within(text: string, start: Value | undefined, end: Value | undefined, budget: Budget) {
  budget.read(text.length);
  if ((start ?? null) === null && (end ?? null) === null) return { text, offset: 0 };
  budget.write(text.length * 4);
  const characters = [...text];
  const at = (value: Value | undefined, otherwise: number) =>
    (value ?? null) === null ? otherwise : asIndex(value!, 'slice indices');
  const from = at(start, 0);
  const offset = from < 0 ? Math.max(0, from + characters.length) : from;
  return { text: characters.slice(offset, at(end, characters.length)).join(''), offset };
}

const place = (search: typeof find | typeof findLast, required: boolean): Method => ({
  parameters: ['sub', 'start', 'end'],
  required: 1,
  run: (budget, text, sub, start, end) => {
    const part = within(text, start, end, budget);
    const wanted = asText(sub!, 'argument 1');
    const at = search === find ? find(part.text, wanted, 0, budget) : findLast(part.text, wanted, budget);
    if (at < 0) return required ? fail('substring not found') : -1;
    budget.read(at);
    return part.offset + codePoints(part.text.slice(0, at));
  },
});

const padded = (align: '<' | '>' | '^'): Method => ({
  parameters: ['width', 'fillchar'],
  required: 1,
  run: (budget, text, width, fill = ' ') =>
    padText(text, asIndex(width!, 'width'), asText(fill, 'the fill character'), align, budget),
});

/** As ljust, rjust and center. */
export function padText(text: string, width: number, fill: string, align: '<' | '>' | '^', budget: Budget): string {
  budget.read(text.length + fill.length);
  const missing = width - codePoints(text);
  if (missing <= 0) return text;
  if (codePoints(fill) !== 1) fail('The fill character must be exactly one character long');
  budget.write(text.length + missing * fill.length);
  const left = align === '<' ? 0 : align === '>' ? missing : (missing >> 1) + (missing & width & 1);
  return fill.repeat(left) + text + fill.repeat(missing - left);
}

/** As str.replace. @param count most replacements; negative: all */
export function replaceText(text: string, old: string, by: string, count: number, budget: Budget): string {
  const most = count < 0 ? Infinity : count;
  const places = old === '' ? gaps(text, most, budget) : findAll(text, old, most, budget);
  budget.write(text.length + places.length * (by.length - old.length));
  const parts: string[] = [];
  let end = 0;
  for (const at of places) {
    parts.push(text.slice(end, at), by);
    end = at + old.length;
  }
  parts.push(text.slice(end));
  return parts.join('');
}

/** The places between characters. */
function gaps(text: string, most: number, budget: Budget): number[] {
  budget.step(text.length * 2); // a place and two parts for each
  const places = [0];
  for (const character of text) places.push(places.at(-1)! + character.length);
  return places.slice(0, Math.min(places.length, most));
}

function join(budget: Budget, text: string, value: Value | undefined): string {
  const parts = iterate(value!, budget).map((item, i) => asText(item, `sequence item ${i}: expected str instance`));
  return joined(parts, text, budget);
}

function zfill(budget: Budget, text: string, width: Value | undefined): string {
  const sign = /^[-+]/.test(text) ? text[0] : '';
  return sign + padText(text.slice(sign.length), asIndex(width!, 'width') - sign.length, '0', '>', budget);
}

function expandTabs(budget: Budget, text: string, size: Value = 8): string {
  const width = Math.max(0, asIndex(size, 'tabsize'));
  budget.step(text.length);
  let column = 0;
  let length = 0;
  const parts: string[] = [];
  for (const character of text) {
    const spaces = width === 0 ? 0 : width - (column % width);
    const part = character === '\t' ? () => ' '.repeat(spaces) : () => character;
    length += character === '\t' ? spaces : 1;
    budget.fits(length);
    parts.push(part());
    column = character === '\n' || character === '\r' ? 0 : column + (character === '\t' ? spaces : 1);
  }
  return joined(parts, '', budget);
}

function isTitle(budget: Budget, text: string): boolean {
  budget.write(text.length * 16);
  return /\p{L}/u.test(text) && titleCase(text) === text;
}

const cased = (changed: (text: string) => string): Method => ({
  parameters: [],
  run: (budget, text) => {
    budget.write(text.length);
    return isCase(text, changed);
  },
});

export const stringMethods: ReadonlyMap<string, Method> = new Map<string, Method>([
  ['upper', change((text) => text.toUpperCase())],
  ['lower', change((text) => text.toLowerCase())],
  ['casefold', change((text) => text.toLowerCase().replaceAll('ß', 'ss').replaceAll('ς', 'σ'))],
  ['title', change(titleCase, 16)],
  ['capitalize', change(capitalize)],
  ['swapcase', change(swapCase, 16)],
  ['strip', strip(trim)],
  ['lstrip', strip(trimStart)],
  ['rstrip', strip(trimEnd)],
  ['startswith', affix('startswith', (text, part) => text.startsWith(part))],
  ['endswith', affix('endswith', (text, part) => text.endsWith(part))],
  ['find', place(find, false)],
  ['rfind', place(findLast, false)],
  ['index', place(find, true)],
  ['rindex', place(findLast, true)],
  [
    'count',
    {
      parameters: ['sub', 'start', 'end'],
      required: 1,
      run: (budget, text, sub, start, end) => {
        const part = within(text, start, end, budget).text;
        const wanted = asText(sub!, 'argument 1');
        return wanted === '' ? codePoints(part) + 1 : findAll(part, wanted, Infinity, budget).length;
      },
    },
  ],
  [
    'replace',
    {
      parameters: ['old', 'new', 'count'],
      required: 2,
      run: (budget, text, old, by, count = -1) =>
        replaceText(
          text,
          asText(old!, 'replace() argument 1'),
          asText(by!, 'replace() argument 2'),
          asIndex(count, 'count'),
          budget,
        ),
    },
  ],
  [
    'removeprefix',
    {
      parameters: ['prefix'],
      required: 1,
      run: (budget, text, prefix) => {
        budget.write(text.length);
        const part = asText(prefix!, 'removeprefix() argument');
        return text.startsWith(part) ? text.slice(part.length) : text;
      },
    },
  ],
  [
    'removesuffix',
    {
      parameters: ['suffix'],
      required: 1,
      run: (budget, text, suffix) => {
        budget.write(text.length);
        const part = asText(suffix!, 'removesuffix() argument');
        return part !== '' && text.endsWith(part) ? text.slice(0, -part.length) : text;
      },
    },
  ],
  ['join', { parameters: ['iterable'], required: 1, run: join }],
  ['ljust', padded('<')],
  ['rjust', padded('>')],
  ['center', padded('^')],
  ['zfill', { parameters: ['width'], required: 1, run: zfill }],
  ['expandtabs', { parameters: ['tabsize'], run: expandTabs }],
  ['isalpha', every(/^\p{L}+$/u)],
  ['isalnum', every(/^[\p{L}\p{N}]+$/u)],
  ['isdecimal', every(/^\p{Nd}+$/u)],
  ['isdigit', every(/^[\p{Nd}\u00b2\u00b3\u00b9\u2070\u2074-\u2079\u2080-\u2089\u2460-\u2468]+$/u)],
  ['isnumeric', every(/^\p{N}+$/u)],
  ['isascii', every(/^[\0-\x7f]*$/)],
  ['isidentifier', every(/^[\p{ID_Start}_]\p{ID_Continue}*$/u)],
  ['isprintable', every(/^[^\p{C}\p{Zl}\p{Zp}\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]*$/u)],
  [
    'isspace',
    {
      parameters: [],
      run: (budget, text) => {
        budget.step(text.length);
        return text !== '' && [...text].every(isSpace);
      },
    },
  ],
  ['isupper', cased((text) => text.toUpperCase())],
  ['islower', cased((text) => text.toLowerCase())],
  ['istitle', { parameters: [], run: isTitle }],
  ...splitMethods,
]);
