// Patterns of tokenizer.json: a text to look for, or a regular expression of Oniguruma, which the tokenizers library
// uses. `oniguruma-to-es` translates the latter.
import { toRegExp } from 'oniguruma-to-es';
import { backtracksLittle } from './pattern-cost.js';
import type { Section } from './section.js';

export interface Pattern {
  /** Start and end of each match, in order: [start, end, start, end ...]. Ends never pass the next start. */
  find(text: string): number[];
  /** Whether it could take longer than the square of the text's length. */
  readonly costly: boolean;
}

/** The matches of a JavaScript expression, which must have the flags `g` and `u`. */
export function regExpPattern(expression: RegExp, costly = false): Pattern {
  return {
    costly,
    find(text) {
      const found: number[] = [];
      expression.lastIndex = 0;
      for (let match = expression.exec(text); match; match = expression.exec(text)) {
        const end = match.index + match[0].length;
        found.push(match.index, end);
        if (match[0] === '') expression.lastIndex = end + ((text.codePointAt(end) ?? 0) > 0xffff ? 2 : 1);
      }
      return found;
    },
  };
}

/** The occurrences of a text. An empty one is found nowhere. */
export function textPattern(wanted: string): Pattern {
  return {
    costly: false,
    find(text) {
      const found: number[] = [];
      for (let at = wanted === '' ? -1 : text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length))
        found.push(at, at + wanted.length);
      return found;
    },
  };
}

const wordClass = String.raw`\p{Alphabetic}\p{M}\p{Nd}\p{Pc}`;
/** Outside of brackets Oniguruma takes six Latin-1 numbers for parts of words too. */
const word = String.raw`[${wordClass}\u00b2\u00b3\u00b9\u00bc-\u00be]`;
const notWord = word.replace('[', '[^');

const outsideBrackets: Readonly<Record<string, string>> = {
  w: word,
  W: notWord,
  b: `(?:(?<!${word})(?=${word})|(?<=${word})(?!${word}))`,
  B: `(?:(?<!${word})(?!${word})|(?<=${word})(?=${word}))`,
};
const insideBrackets: Readonly<Record<string, string>> = { w: wordClass, W: `[^${wordClass}]` };

/** The source with what Oniguruma takes for words written out; the translation takes all numbers for them. */
function withWords(source: string): string {
  let depth = 0;
  return source.replace(/\\(\P{Cs})|[[\]]/gsu, (text: string, escaped: string | undefined) => {
    if (text === '[') depth++;
    else if (text === ']') depth = Math.max(0, depth - 1);
    else return (depth > 0 ? insideBrackets : outsideBrackets)[escaped!] ?? text;
    return text;
  });
}

/**
 * The `pattern` of a section: `{ "String": ... }` or `{ "Regex": ... }`.
 * @throws CheckpointError for an expression that cannot be read.
 */
export function patternOf(section: Section, key = 'pattern'): Pattern {
  const { value } = section;
  if (typeof value[key] === 'string') return textPattern(value[key]);
  const pattern = section.section(key);
  const text = pattern.optionalString('String');
  if (text !== undefined) return textPattern(text);
  const source = pattern.string('Regex');
  const { patternLength } = section.limits;
  if (source.length > patternLength)
    pattern.fail('Regex', `has ${source.length} characters, more than ${patternLength}`);
  try {
    return regExpPattern(
      toRegExp(withWords(source), { global: true, target: 'ES2024', lazyCompileLength: Infinity }),
      !backtracksLittle(source),
    );
  } catch (cause) {
    return pattern.fail('Regex', `is not an expression that can be used: ${(cause as Error).message}`);
  }
}
