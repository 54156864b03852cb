// Python's regular expressions where an engine of linear time cannot follow: look-around, back references, atomic
// groups, conditionals. A backtracking matcher that counts its steps, for short texts (names of modules).
// Source followed: the `re` module of Python 3.12.
import { MAX_PATTERN_STEPS } from './limits.js';

/** The pattern is none, or the match takes too long. */
export class PatternError extends Error {}

/** Matches from a position on, then what follows; groups are set while what follows is tried. */
type Matcher = (run: Run, at: number, next: (at: number) => boolean) => boolean;

interface Node {
  readonly match: Matcher;
  /** Characters that it takes; undefined when that differs. */
  readonly width: number | undefined;
  /** It is about a place in the text, so it cannot be repeated. */
  readonly isPlace?: boolean;
}

interface Run {
  readonly text: string;
  /** Start and end of each group that has matched. */
  readonly groups: (readonly [start: number, end: number] | undefined)[];
  steps: number;
}

interface Flags {
  readonly ignoreCase: boolean;
  readonly dotAll: boolean;
  readonly multiline: boolean;
}

const step = (run: Run): void => {
  if (++run.steps > MAX_PATTERN_STEPS) throw new PatternError(`it takes more than ${MAX_PATTERN_STEPS} steps`);
};

const empty: Node = { width: 0, match: (_, at, next) => next(at) };

const one = (test: (char: string) => boolean): Node => ({
  width: 1,
  match: (run, at, next) => {
    step(run);
    return at < run.text.length && test(run.text[at]) && next(at + 1);
  },
});

const assertion = (holds: (text: string, at: number) => boolean): Node => ({
  width: 0,
  isPlace: true,
  match: ({ text }, at, next) => holds(text, at) && next(at),
});

const addWidths = (a: number | undefined, b: number | undefined): number | undefined =>
  a === undefined || b === undefined ? undefined : a + b;

const sequence = (nodes: readonly Node[]): Node => ({
  width: nodes.reduce<number | undefined>((sum, { width }) => addWidths(sum, width), 0),
  match: (run, at, next) => {
    const from = (i: number, place: number): boolean => {
      step(run); // parts that take no character count too: their ways multiply like any others
      return i === nodes.length ? next(place) : nodes[i].match(run, place, (end) => from(i + 1, end));
    };
    return from(0, at);
  },
});

const alternatives = (nodes: readonly Node[]): Node => ({
  width: nodes.every(({ width }) => width === nodes[0].width) ? nodes[0].width : undefined,
  match: (run, at, next) => nodes.some((node) => node.match(run, at, next)),
});

interface Times {
  readonly least: number;
  readonly most: number;
  readonly lazy: boolean;
}

const repeated = (node: Node, { least, most, lazy }: Times): Node => ({
  width: node.width === 0 ? 0 : node.width !== undefined && least === most ? node.width * least : undefined,
  match: (run, start, next) => {
    const from = (count: number, at: number): boolean => {
      step(run);
      const more = (): boolean =>
        count < most && node.match(run, at, (end) => (end > at || count < least) && from(count + 1, end));
      if (count < least) return more();
      return lazy ? next(at) || more() : more() || next(at);
    };
    return from(0, start);
  },
});

/** Without a way back into it. */
const atomic = (node: Node): Node => ({
  width: node.width,
  match: (run, at, next) => {
    const before = [...run.groups];
    let end = -1;
    if (node.match(run, at, (place) => ((end = place), true)) && next(end)) return true;
    run.groups.splice(0, Infinity, ...before);
    return false;
  },
});

const look = (node: Node, behind: boolean, wanted: boolean): Node => ({
  width: 0,
  match: (run, at, next) => {
    const before = [...run.groups];
    const start = behind ? at - node.width! : at;
    const found = start >= 0 && node.match(run, start, (end) => !behind || end === at);
    if (!wanted) run.groups.splice(0, Infinity, ...before);
    if (found === wanted && next(at)) return true;
    run.groups.splice(0, Infinity, ...before);
    return false;
  },
});

const group = (node: Node, index: number): Node => ({
  width: node.width,
  match: (run, start, next) =>
    node.match(run, start, (end) => {
      const before = run.groups[index];
      run.groups[index] = [start, end];
      if (next(end)) return true;
      run.groups[index] = before;
      return false;
    }),
});

const reference = (index: number, fold: (text: string) => string): Node => ({
  width: undefined,
  match: (run, at, next) => {
    step(run);
    const found = run.groups[index];
    if (!found) return false;
    const wanted = run.text.slice(...found);
    const end = at + wanted.length;
    return fold(run.text.slice(at, end)) === fold(wanted) && end <= run.text.length && next(end);
  },
});

const conditional = (index: number, yes: Node, no: Node): Node => ({
  width: yes.width === no.width ? yes.width : undefined,
  match: (run, at, next) => (run.groups[index] ? yes : no).match(run, at, next),
});

const isWord = (char: string | undefined): boolean => char !== undefined && /[\p{L}\p{N}_]/u.test(char);
const isEdge = (text: string, at: number): boolean => isWord(text[at - 1]) !== isWord(text[at]);

const kinds: Readonly<Record<string, (char: string) => boolean>> = {
  d: (char) => /\p{Nd}/u.test(char),
  D: (char) => !/\p{Nd}/u.test(char),
  w: isWord,
  W: (char) => !isWord(char),
  s: (char) => /\s/.test(char),
  S: (char) => !/\s/.test(char),
};
const controls: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', f: '\f', v: '\v', a: '\x07', 0: '\0' };

/** Anything else in braces is text. */
const QUANTIFIER = /^(?:([*+?])|\{(?=[\d,])(\d*)(,?)(\d*)\})/;

class Parser {
  #at = 0;
  #count = 0;
  /** The highest group that a conditional asks for; it may come later. */
  #asked = 0;
  readonly #names = new Map<string, number>();
  readonly #closed = new Set<number>();

  constructor(private readonly pattern: string) {}

  parse(): Node {
    let flags: Flags = { ignoreCase: false, dotAll: false, multiline: false };
    for (let found; (found = /^\(\?([aiLmsux]+)\)/.exec(this.pattern.slice(this.#at))); this.#at += found[0].length)
      flags = this.#flags(flags, found[1]);
    const node = this.#alternatives(flags);
    if (this.#at < this.pattern.length) this.#fail('unbalanced parenthesis');
    if (this.#asked > this.#count) this.#fail('unknown group');
    return node;
  }

  #fail(why: string): never {
    throw new PatternError(`${why} at position ${this.#at}`);
  }

  #takes(text: string): boolean {
    if (!this.pattern.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  /** What a sticky expression finds here. */
  #find(expression: RegExp): RegExpExecArray | undefined {
    const found = expression.exec(this.pattern.slice(this.#at));
    if (found?.index !== 0) return undefined;
    this.#at += found[0].length;
    return found;
  }

  #flags(flags: Flags, letters: string, on = true): Flags {
    if (/[xL]/.test(letters)) this.#fail(`the flag ${letters} is not supported`);
    return {
      ignoreCase: letters.includes('i') ? on : flags.ignoreCase,
      dotAll: letters.includes('s') ? on : flags.dotAll,
      multiline: letters.includes('m') ? on : flags.multiline,
    };
  }

  #alternatives(flags: Flags): Node {
    const nodes = [this.#sequence(flags)];
    while (this.#takes('|')) nodes.push(this.#sequence(flags));
    return nodes.length === 1 ? nodes[0] : alternatives(nodes);
  }

  #sequence(flags: Flags): Node {
    const nodes: Node[] = [];
    while (this.#at < this.pattern.length && !/[|)]/.test(this.pattern[this.#at])) nodes.push(this.#quantified(flags));
    return sequence(nodes);
  }

  #quantified(flags: Flags): Node {
    if (QUANTIFIER.test(this.pattern.slice(this.#at))) this.#fail('nothing to repeat');
    const node = this.#atom(flags);
    const found = this.#find(QUANTIFIER);
    if (!found) return node;
    if (node.isPlace) this.#fail('nothing to repeat');
    const [, sign, from, comma, to] = found;
    const least = sign ? Number(sign === '+') : Number(from);
    const most = sign ? (sign === '?' ? 1 : Infinity) : comma ? (to === '' ? Infinity : Number(to)) : least;
    if (most < least) this.#fail('min repeat greater than max repeat');
    const lazy = this.#takes('?');
    const possessive = !lazy && this.#takes('+');
    if (QUANTIFIER.test(this.pattern.slice(this.#at))) this.#fail('multiple repeat');
    const times = repeated(node, { least, most, lazy });
    return possessive ? atomic(times) : times;
  }

  #literal(char: string, { ignoreCase }: Flags): Node {
    const folded = char.toLowerCase();
    return one(ignoreCase ? (other) => other.toLowerCase() === folded : (other) => other === char);
  }

  #atom(flags: Flags): Node {
    const char = this.pattern[this.#at++];
    switch (char) {
      case '(':
        return this.#group(flags);
      case '[':
        return this.#class(flags);
      case '\\':
        return this.#escape(flags);
      case '.':
        return one(flags.dotAll ? () => true : (other) => other !== '\n');
      case '^':
        return assertion((text, at) => at === 0 || (flags.multiline && text[at - 1] === '\n'));
      case '$':
        return assertion((text, at) => {
          if (at === text.length || (at === text.length - 1 && text[at] === '\n')) return true;
          return flags.multiline && text[at] === '\n';
        });
      default:
        return this.#literal(char, flags);
    }
  }

  #close(node: Node): Node {
    if (!this.#takes(')')) this.#fail('missing )');
    return node;
  }

  #group(flags: Flags): Node {
    if (!this.#takes('?')) return this.#capture(flags);
    if (this.#find(/^#[^)]*\)/)) return empty;
    if (this.#takes(':')) return this.#close(this.#alternatives(flags));
    if (this.#takes('>')) return atomic(this.#close(this.#alternatives(flags)));
    const name = this.#find(/^P<([\p{L}_][\p{L}\p{N}_]*)>/u)?.[1];
    if (name !== undefined) return this.#capture(flags, name);
    const known = this.#find(/^P=([^)]*)\)/)?.[1];
    if (known !== undefined) return this.#reference(this.#names.get(known), flags);
    const around = this.#find(/^(<?)([=!])/);
    if (around) return this.#look(flags, around[1] === '<', around[2] === '=');
    const condition = this.#find(/^\(([^)]*)\)/)?.[1];
    if (condition !== undefined) return this.#conditional(flags, condition);
    const inner = this.#find(/^([aimsux]*)(?:-([imsx]+))?:/);
    if (!inner) this.#fail('unknown extension');
    const own = this.#flags(this.#flags(flags, inner[1]), inner[2] ?? '', false);
    return this.#close(this.#alternatives(own));
  }

  #capture(flags: Flags, name?: string): Node {
    const index = ++this.#count;
    if (name !== undefined && this.#names.has(name)) this.#fail(`the group ${name} is there twice`);
    if (name !== undefined) this.#names.set(name, index);
    const node = group(this.#close(this.#alternatives(flags)), index);
    this.#closed.add(index);
    return node;
  }

  #look(flags: Flags, behind: boolean, wanted: boolean): Node {
    const node = this.#close(this.#alternatives(flags));
    if (behind && node.width === undefined) this.#fail('look-behind requires fixed-width pattern');
    return look(node, behind, wanted);
  }

  #conditional(flags: Flags, name: string): Node {
    const index = /^\d+$/.test(name) ? Number(name) : this.#names.get(name);
    if (!index) this.#fail('unknown group');
    this.#asked = Math.max(this.#asked, index);
    const yes = this.#sequence(flags);
    const no = this.#takes('|') ? this.#sequence(flags) : empty;
    return this.#close(conditional(index, yes, no));
  }

  #reference(index: number | undefined, { ignoreCase }: Flags): Node {
    if (index === undefined || !this.#closed.has(index))
      this.#fail('a reference to a group that is not there, or open');
    return reference(index, ignoreCase ? (text) => text.toLowerCase() : (text) => text);
  }

  #escape(flags: Flags): Node {
    const index = this.#find(/^[1-9]\d?/)?.[0];
    if (index !== undefined) return this.#reference(Number(index), flags);
    if (this.#takes('A')) return assertion((_, at) => at === 0);
    if (this.#takes('Z')) return assertion((text, at) => at === text.length);
    if (this.#takes('b')) return assertion(isEdge);
    if (this.#takes('B')) return assertion((text, at) => text !== '' && !isEdge(text, at));
    const found = this.#escaped();
    return typeof found === 'string' ? this.#literal(found, flags) : one(found);
  }

  /** What a backslash makes of what follows: a character, or a kind of them. */
  #escaped(): string | ((char: string) => boolean) {
    const code = this.#find(/^(?:x([\da-fA-F]{2})|u([\da-fA-F]{4}))/);
    if (code) return String.fromCharCode(parseInt(code[1] ?? code[2], 16));
    const char = this.pattern[this.#at++];
    if (char === undefined) this.#fail('a backslash at the end');
    if (Object.hasOwn(kinds, char)) return kinds[char];
    if (Object.hasOwn(controls, char)) return controls[char];
    if (/[A-Za-z0-9]/.test(char)) this.#fail(`bad escape \\${char}`);
    return char;
  }

  #class({ ignoreCase }: Flags): Node {
    const not = this.#takes('^');
    const tests: ((char: string) => boolean)[] = [];
    for (let first = true; first || this.pattern[this.#at] !== ']'; first = false) {
      if (this.#at >= this.pattern.length) this.#fail('unterminated character set');
      const low = this.#member();
      if (typeof low !== 'string') {
        tests.push(low);
        continue;
      }
      const isRange = this.pattern[this.#at] === '-' && (this.pattern[this.#at + 1] ?? ']') !== ']';
      if (isRange) this.#at++;
      const high = isRange ? this.#member() : low;
      if (typeof high !== 'string' || high < low) this.#fail('bad character range');
      tests.push((char) => char >= low && char <= high);
    }
    this.#at++;
    const has = (char: string): boolean => tests.some((test) => test(char));
    const folds = (char: string): boolean => has(char.toLowerCase()) || has(char.toUpperCase());
    return one((char) => (ignoreCase ? folds(char) : has(char)) !== not);
  }

  #member(): string | ((char: string) => boolean) {
    if (!this.#takes('\\')) return this.pattern[this.#at++];
    return this.#takes('b') ? '\b' : this.#escaped();
  }
}

/**
 * Whether a text matches at its start, as `re.match` has it.
 * @throws PatternError for a pattern that is none; the function it gives, when a text takes more steps than the limit
 */
export function pythonMatch(pattern: string): (text: string, spent: (steps: number) => void) => boolean {
  const node = new Parser(pattern).parse();
  return (text, spent) => {
    const run: Run = { text, groups: [], steps: 0 };
    try {
      const matches = node.match(run, 0, () => true);
      spent(run.steps);
      return matches;
    } catch (cause) {
      if (cause instanceof RangeError) throw new PatternError('it goes too deep');
      throw cause;
    }
  };
}
