// From a template's text to tokens, as jinja2's lexer.py does it with trim_blocks and lstrip_blocks (transformers sets
// both). Every pass is linear in the text.
import { fail } from './errors.js';
import { isBlank, trimEnd } from './whitespace.js';

export type TokenType =
  | 'data'
  | 'variableBegin'
  | 'variableEnd'
  | 'blockBegin'
  | 'blockEnd'
  | 'name'
  | 'string'
  | 'integer'
  | 'float'
  | 'operator'
  | 'end';

export interface Token {
  readonly type: TokenType;
  /** The text, without escapes for strings. */
  readonly value: string;
  /** Offset in the text. */
  readonly at: number;
}

/** As Jinja: CRLF and CR are LF everywhere in a template, and one at its end is dropped. */
export function normalizeNewlines(source: string): string {
  const text = source.replace(/\r\n?/g, '\n');
  return text.endsWith('\n') ? text.slice(0, -1) : text;
}

const FLOAT = /\d+(?:_\d+)*(?:(?:\.\d+(?:_\d+)*)?e[+-]?\d+(?:_\d+)*|\.\d+(?:_\d+)*)/iy;
const INTEGER = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy;
const NAME = /[\p{ID_Start}_]\p{ID_Continue}*/uy;
const OPERATOR = /\/\/|\*\*|==|!=|>=|<=|[-+/*%~[\](){}><=.:|,;]/y;
const RAW_BEGIN = /\{%[-+]?\s*raw\s*(?:-%\}\s*|%\})/y;
const RAW_END = /\{%([-+]?)\s*endraw\s*(?:\+%\}|-%\}\s*|%\}\n?)/g;
const BLANK = /\s+/y;
const BLOCK_END = /\+%\}|-%\}\s*|%\}\n?/y;
const VARIABLE_END = /-\}\}\s*|\}\}/y;
const COMMENT_END = /[-+]?#\}/g;

const closing: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}' };
const ESCAPE = /\\(?:x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|[0-7]{1,3}|[\s\S])/g;
const simpleEscapes: Readonly<Record<string, string>> = {
  '\n': '',
  '\\': '\\',
  "'": "'",
  '"': '"',
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
};

/** A string literal's text, escapes resolved as Python's unicode-escape codec does; unknown ones stay. */
function unescape(text: string): string {
  if (!text.includes('\\')) return text;
  return text.replace(ESCAPE, (escape) => {
    const kind = escape[1];
    if (Object.hasOwn(simpleEscapes, kind)) return simpleEscapes[kind];
    if (/[0-7]/.test(kind)) return String.fromCodePoint(parseInt(escape.slice(1), 8));
    if (escape.length > 2) {
      const code = parseInt(escape.slice(2), 16);
      return code <= 0x10ffff ? String.fromCodePoint(code) : fail(`illegal Unicode character ${escape}`);
    }
    return 'xuUN'.includes(kind) ? fail(`unfinished escape ${escape} in a string`) : escape;
  });
}

class Lexer {
  readonly tokens: Token[] = [];
  #at = 0;
  #lineStarts = true;

  constructor(private readonly text: string) {}

  run(): Token[] {
    while (this.#at < this.text.length) this.#next();
    this.#push('end', '');
    return this.tokens;
  }

  #push(type: TokenType, value: string): void {
    this.tokens.push({ type, value, at: this.#at });
  }

  /** Moves past what a sticky expression matches here; undefined when it does not. */
  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.text)?.[0];
    if (match !== undefined) this.#at += match.length;
    return match;
  }

  /** Offset of the next `{{`, `{%` or `{#`; the text's length when there is none. */
  #nextTag(): number {
    for (let at = this.text.indexOf('{', this.#at); at >= 0; at = this.text.indexOf('{', at + 1))
      if ('{%#'.includes(this.text[at + 1] || ' ')) return at;
    return this.text.length;
  }

  /** Text up to a tag, without what the tag strips before itself. */
  #data(end: number, sign: string, isVariable: boolean): void {
    let data = this.text.slice(this.#at, end);
    const lineStart = data.lastIndexOf('\n') + 1;
    if (sign === '-') data = trimEnd(data);
    else if (sign !== '+' && !isVariable && (lineStart > 0 || this.#lineStarts) && isBlank(data.slice(lineStart)))
      data = data.slice(0, lineStart);
    if (data !== '') this.#push('data', data);
  }

  #next(): void {
    const tag = this.#nextTag();
    if (tag === this.text.length) {
      this.#data(tag, '+', true);
      this.#at = tag;
      return;
    }
    const kind = this.text[tag + 1];
    const sign = /[-+]/.test(this.text[tag + 2] ?? '') ? this.text[tag + 2] : '';
    this.#data(tag, sign, kind === '{');
    this.#at = tag;
    if (kind === '%' && this.#take(RAW_BEGIN) !== undefined) return this.#raw();
    this.#at += 2 + sign.length;
    if (kind === '#') return this.#comment();
    this.#push(kind === '%' ? 'blockBegin' : 'variableBegin', '');
    this.#inside(kind === '%' ? BLOCK_END : VARIABLE_END, kind === '%' ? 'blockEnd' : 'variableEnd');
  }

  #raw(): void {
    RAW_END.lastIndex = this.#at;
    const end = RAW_END.exec(this.text);
    if (!end) return fail('Missing end of raw directive');
    this.#lineStarts = false;
    this.#data(end.index, end[1], false);
    this.#at = end.index + end[0].length;
    this.#lineStarts = end[0].endsWith('\n');
  }

  #comment(): void {
    COMMENT_END.lastIndex = this.#at;
    const end = COMMENT_END.exec(this.text);
    if (!end) return fail('Missing end of comment tag');
    this.#at = end.index + end[0].length;
    const after = end[0][0] === '-' ? this.#take(BLANK) : end[0][0] === '+' ? undefined : this.#take(/\n/y);
    this.#lineStarts = after?.endsWith('\n') ?? false;
  }

  #inside(end: RegExp, endType: TokenType): void {
    const open: string[] = [];
    for (;;) {
      this.#take(BLANK);
      if (this.#at >= this.text.length) return; // the parser says what is missing
      if (open.length === 0) {
        const ended = this.#take(end);
        if (ended !== undefined) {
          this.#push(endType, '');
          this.#lineStarts = ended.endsWith('\n');
          return;
        }
      }
      this.#token(open);
    }
  }

  #token(open: string[]): void {
    const at = this.#at;
    const push = (type: TokenType, value: string) => this.tokens.push({ type, value, at });
    const char = this.text[at];
    if (char === "'" || char === '"') return void push('string', unescape(this.#string(char)));
    const float = this.text[at - 1] === '.' ? undefined : this.#take(FLOAT);
    if (float !== undefined) return void push('float', float);
    const integer = this.#take(INTEGER);
    if (integer !== undefined) return void push('integer', integer);
    const name = this.#take(NAME);
    if (name !== undefined) return void push('name', name);
    const operator = this.#take(OPERATOR);
    if (operator === undefined) return fail(`unexpected char '${char}'`);
    if (Object.hasOwn(closing, operator)) open.push(closing[operator]);
    else if (/^[)\]}]$/.test(operator)) {
      const expected = open.pop();
      if (expected !== operator)
        fail(expected === undefined ? `unexpected '${operator}'` : `unexpected '${operator}', expected '${expected}'`);
    }
    push('operator', operator);
  }

  #string(quote: string): string {
    const start = this.#at + 1;
    let at = start;
    while (at < this.text.length && this.text[at] !== quote) at += this.text[at] === '\\' ? 2 : 1;
    if (at >= this.text.length) fail('a string has no end');
    this.#at = at + 1;
    return this.text.slice(start, at);
  }
}

/** @param text with newlines normalized @throws TemplateError */
export const tokenize = (text: string): Token[] => new Lexer(text).run();
