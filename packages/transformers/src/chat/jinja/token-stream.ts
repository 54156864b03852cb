import { MAX_TEMPLATE_NESTING } from '../../limits.js';
import { LimitError, TemplateError } from './errors.js';
import { normalizeNewlines, tokenize, type Token, type TokenType } from './tokens.js';

const descriptions: Partial<Record<TokenType, string>> = {
  data: 'template data',
  variableBegin: 'begin of print statement',
  variableEnd: 'end of print statement',
  blockBegin: 'begin of statement block',
  blockEnd: 'end of statement block',
  end: 'end of template',
};

/** The tokens of a template, read one after the other, with what the parsers of expressions and statements share. */
export class TokenStream {
  readonly #text: string;
  readonly #tokens: readonly Token[];
  #position = 0;
  #depth = 0;
  /** Names read so far in each macro around the current place. */
  readonly #names: Set<string>[] = [];

  constructor(source: string) {
    this.#text = normalizeNewlines(source);
    this.#tokens = tokenize(this.#text);
  }

  get current(): Token {
    return this.#tokens[this.#position];
  }

  get following(): Token {
    return this.#tokens[Math.min(this.#position + 1, this.#tokens.length - 1)];
  }

  next(): Token {
    const token = this.current;
    if (token.type !== 'end') this.#position++;
    return token;
  }

  is(type: TokenType, value?: string): boolean {
    return this.current.type === type && (value === undefined || this.current.value === value);
  }

  isOperator(...values: string[]): boolean {
    return this.current.type === 'operator' && values.includes(this.current.value);
  }

  isName(...values: string[]): boolean {
    return this.current.type === 'name' && values.includes(this.current.value);
  }

  /** Reads the token if it is this one. */
  skip(type: TokenType, value: string): boolean {
    const found = this.is(type, value);
    if (found) this.next();
    return found;
  }

  expect(type: TokenType, value?: string): Token {
    if (!this.is(type, value))
      this.fail(
        `expected ${value === undefined ? (descriptions[type] ?? type) : `'${value}'`}, got ${this.describe()}`,
      );
    return this.next();
  }

  describe({ type, value } = this.current): string {
    return `'${descriptions[type] ?? value}'`;
  }

  /** @throws TemplateError with the line. */
  fail(message: string): never {
    const line = this.#text.slice(0, this.current.at).split('\n').length;
    throw new TemplateError(`${message} (line ${line})`);
  }

  /** Runs a parser one level deeper. */
  nested<T>(parse: () => T): T {
    if (++this.#depth > MAX_TEMPLATE_NESTING)
      throw new LimitError(`the chat template nests more than ${MAX_TEMPLATE_NESTING} deep`);
    const result = parse();
    this.#depth--;
    return result;
  }

  /** Runs a parser and says which names it read. */
  withNames<T>(parse: () => T): { result: T; names: ReadonlySet<string> } {
    const names = new Set<string>();
    this.#names.push(names);
    const result = parse();
    this.#names.pop();
    const outer = this.#names.at(-1);
    if (outer) for (const name of names) outer.add(name);
    return { result, names };
  }

  sawName(name: string): void {
    this.#names.at(-1)?.add(name);
  }
}
