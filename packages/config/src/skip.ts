// Which modules stay unquantized. Source followed: `should_convert_module` of transformers 5.17, which matches every
// entry of `llm_int8_skip_modules` as a regular expression at the start of a module's path, or as text at its end.
// Patterns come from files too, so they run on an engine without backtracking (RE2): time is linear whatever they hold.
// What it has not (look-around, back references) runs on a matcher that counts its steps.
import { RE2JS, RE2JSException } from 're2js';
import { ConfigError } from './errors.js';
import { show } from './fields.js';
import { PatternError, pythonMatch } from './python-regex.js';
import { MAX_PATTERN_CHARS, MAX_PATTERN_DEPTH, MAX_PATTERN_REPEATS } from './limits.js';

/** Decides which modules stay as they are; planner and loader ask the same object. */
export interface SkipRule {
  readonly patterns: readonly string[];
  /** Whether a module, by its path (`model.layers.0.mlp.up_proj`), stays unquantized. */
  skips(path: string): boolean;
  /** The patterns that match none of the paths: misspelt names, or names of blocks (`mlp`), which match nothing. */
  unmatched(paths: Iterable<string>): readonly string[];
}

type Matcher = (path: string) => boolean;

/**
 * The rule of a list of patterns, as `llmInt8SkipModules` has it.
 * @throws ConfigError for what is no regular expression or an implausibly large one; its functions, for a path on
 *   which a pattern that looks around or back takes too long
 */
export function skipRule(patterns: readonly string[]): SkipRule {
  const matchers = new Map(patterns.map((pattern) => [pattern, matcher(pattern)]));
  return {
    patterns,
    skips: (path) => [...matchers.values()].some((matches) => matches(path)),
    unmatched: (paths) => {
      const left = new Map(matchers);
      for (const path of paths) for (const [pattern, matches] of left) if (matches(path)) left.delete(pattern);
      return [...left.keys()];
    },
  };
}

/** A line for patterns without effect; undefined when each has one. */
export const unmatchedLine = (patterns: readonly string[]): string | undefined =>
  patterns.length === 0
    ? undefined
    : `llmInt8SkipModules: ${patterns.join(', ')} matches no linear layer, so it keeps nothing unquantized (patterns match at the start of a path such as model.layers.0.mlp.up_proj, or as text at its end)`;

function matcher(pattern: string): Matcher {
  const start = /^[\w.-]*$/.test(pattern) ? literalStart(pattern) : expressionStart(pattern);
  return (path) => start(path) || path.endsWith(pattern);
}

/** The usual pattern, a path: only its dots are special. */
const literalStart =
  (pattern: string): Matcher =>
  (path) => {
    if (path.length < pattern.length) return false;
    for (let i = 0; i < pattern.length; i++) if (pattern[i] !== '.' && pattern[i] !== path[i]) return false;
    return true;
  };

function expressionStart(pattern: string): Matcher {
  checkSize(pattern);
  try {
    const compiled = RE2JS.compile(translate(pattern));
    return (path) => compiled.matcher(path).lookingAt();
  } catch (cause) {
    if (!(cause instanceof RE2JSException)) throw cause;
    return steppedStart(pattern);
  }
}

/** For what needs to go back. */
function steppedStart(pattern: string): Matcher {
  try {
    const matches = pythonMatch(pattern);
    return (path) => {
      try {
        return matches(path);
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

/** Bounds on what a pattern may compile to. */
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
  let repeats = 1;
  for (const [, least, most] of pattern.matchAll(/\{(\d*),?(\d*)\}/g))
    repeats *= Math.max(1, Number(least), Number(most));
  if (repeats > MAX_PATTERN_REPEATS) throw tooLarge(`repeats may multiply to ${MAX_PATTERN_REPEATS}`);
}

/** Where Python writes it differently: `\Z` is the end of the text, and `{,n}` starts at 0. */
const translate = (pattern: string): string =>
  pattern.replace(/\\[\s\S]|\{,(\d+)\}/g, (part: string, most?: string) =>
    most === undefined ? (part === '\\Z' ? '\\z' : part) : `{0,${most}}`,
  );
