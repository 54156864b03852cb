// Which modules stay unquantized. Source followed: `should_convert_module` of transformers 5.17, which matches every
// entry of `llm_int8_skip_modules` as a regular expression at the start of a module's path, or as text at its end.
// Patterns come from files too, so they run on an engine without backtracking (RE2): time is linear whatever they hold.
// What it has not (look-around, back references) runs on a matcher that counts its steps.
import { RE2JS, RE2JSException } from 're2js';
import { ConfigError } from './errors.js';
import { show } from './fields.js';
import { PatternError, pythonMatch } from './python-regex.js';
import {
  MAX_PATTERN_CHARS,
  MAX_PATTERN_DEPTH,
  MAX_PATTERN_REPEATS,
  MAX_PATTERNS_SIZE,
  MAX_PATTERNS_WORK,
} from './limits.js';

/** Decides which modules stay as they are; planner and loader ask the same object. */
export interface SkipRule {
  readonly patterns: readonly string[];
  /** Whether a module, by its path (`model.layers.0.mlp.up_proj`), stays unquantized. */
  skips(path: string): boolean;
  /** The patterns that match none of the paths: misspelt names, or names of blocks (`mlp`), which match nothing. */
  unmatched(paths: Iterable<string>): readonly string[];
}

/** Counts what matching takes. @throws ConfigError past the limit */
type Spend = (work: number) => void;
type Matcher = (path: string, spend: Spend) => boolean;

function budget(): Spend {
  let left = MAX_PATTERNS_WORK;
  return (work) => {
    left -= work;
    if (left >= 0) return;
    throw new ConfigError('skipModules', 'the patterns take too long on all modules together', {
      why: `at most ${MAX_PATTERNS_WORK} comparisons are made`,
      fix: 'use fewer or plainer patterns',
    });
  };
}

/**
 * The rule of a list of patterns, as `llmInt8SkipModules` has it.
 * @throws ConfigError for what is no regular expression, an implausibly large one or too many; its functions, for
 *   paths on which the patterns take too long
 */
export function skipRule(patterns: readonly string[]): SkipRule {
  const known = [...new Set(patterns)];
  checkSizes(known.filter((pattern) => !isLiteral(pattern)));
  const matchers = known.map(matcher);
  const answers = new Map<string, boolean>();
  const spend = budget();
  return {
    patterns,
    skips: (path) => {
      const answer = answers.get(path) ?? matchers.some((matches) => matches(path, spend));
      answers.set(path, answer);
      return answer;
    },
    unmatched: (paths) => {
      const spendHere = budget();
      const left = new Map(known.map((pattern, index) => [pattern, matchers[index]]));
      for (const path of paths)
        for (const [pattern, matches] of left) if (matches(path, spendHere)) left.delete(pattern);
      return [...left.keys()];
    },
  };
}

/** A line for patterns without effect; undefined when each has one. */
export const unmatchedLine = (patterns: readonly string[]): string | undefined =>
  patterns.length === 0
    ? undefined
    : `llmInt8SkipModules: ${patterns.join(', ')} matches no linear layer, so it keeps nothing unquantized (patterns match at the start of a path such as model.layers.0.mlp.up_proj, or as text at its end)`;

const isLiteral = (pattern: string): boolean => /^[\w.-]*$/.test(pattern);

function matcher(pattern: string): Matcher {
  const start = isLiteral(pattern) ? literalStart(pattern) : expressionStart(pattern);
  return (path, spend) => start(path, spend) || path.endsWith(pattern);
}

/** The usual pattern, a path: only its dots are special. */
const literalStart =
  (pattern: string): Matcher =>
  (path, spend) => {
    spend(1);
    if (path.length < pattern.length) return false;
    for (let i = 0; i < pattern.length; i++) if (pattern[i] !== '.' && pattern[i] !== path[i]) return false;
    return true;
  };

/** What starting an expression takes, in comparisons of texts, and how many of its characters take as much as one. */
const EXPRESSION_WORK = 60;
const CHARS_OF_WORK = 10;

function expressionStart(pattern: string): Matcher {
  try {
    const compiled = RE2JS.compile(translate(pattern));
    const work = EXPRESSION_WORK + sizeOf(pattern) / CHARS_OF_WORK;
    return (path, spend) => {
      spend(work);
      return compiled.matcher(path).lookingAt();
    };
  } catch (cause) {
    if (!(cause instanceof RE2JSException)) throw cause;
    return steppedStart(pattern);
  }
}

/** For what needs to go back. */
function steppedStart(pattern: string): Matcher {
  try {
    const matches = pythonMatch(pattern);
    return (path, spend) => {
      spend(EXPRESSION_WORK);
      try {
        return matches(path, spend);
      } catch (cause) {
        if (!(cause instanceof PatternError)) throw cause;
        throw new ConfigError('skipModules', `the pattern ${show(pattern)} takes too long on ${show(path)}`, {
          cause,
          why: cause.message,
          fix: 'list the modules, or use a plainer regular expression',
        });
      }
    };
  } catch (cause) {
    if (!(cause instanceof PatternError)) throw cause;
    throw new ConfigError('skipModules', `the pattern ${show(pattern)} is no regular expression`, {
      cause,
      why: cause.message,
      fix: 'escape special characters with a backslash',
    });
  }
}

/** Bounds on what expressions may compile to, each and together. */
function checkSizes(expressions: readonly string[]): void {
  let size = 0;
  for (const pattern of expressions) {
    checkSize(pattern);
    size += sizeOf(pattern);
    if (size <= MAX_PATTERNS_SIZE) continue;
    throw new ConfigError('skipModules', `the ${expressions.length} regular expressions are too large together`, {
      why: `their characters times their repeats may make ${MAX_PATTERNS_SIZE}`,
      fix: 'use fewer or plainer ones',
    });
  }
}

function checkSize(pattern: string): void {
  const tooLarge = (why: string): ConfigError =>
    new ConfigError('skipModules', `the pattern ${show(pattern)} is too large`, { why, fix: 'use a plainer one' });
  if (pattern.length > MAX_PATTERN_CHARS) throw tooLarge(`at most ${MAX_PATTERN_CHARS} characters are read`);
  let depth = 0;
  for (const char of pattern) {
    if (char === '(') depth++;
    else if (char === ')') depth--;
    if (depth > MAX_PATTERN_DEPTH) throw tooLarge(`at most ${MAX_PATTERN_DEPTH} parentheses may be open`);
  }
  if (repeatsOf(pattern) > MAX_PATTERN_REPEATS) throw tooLarge(`repeats may multiply to ${MAX_PATTERN_REPEATS}`);
}

function repeatsOf(pattern: string): number {
  let repeats = 1;
  for (const [, least, most] of pattern.matchAll(/\{(\d*),?(\d*)\}/g))
    repeats *= Math.max(1, Number(least), Number(most));
  return repeats;
}

/** What it may compile to. */
const sizeOf = (pattern: string): number => pattern.length * repeatsOf(pattern);

/** Where Python writes it differently: `\Z` is the end of the text, and `{,n}` starts at 0. */
const translate = (pattern: string): string =>
  pattern.replace(/\\[\s\S]|\{,(\d+)\}/g, (part: string, most?: string) =>
    most === undefined ? (part === '\\Z' ? '\\z' : part) : `{0,${most}}`,
  );
