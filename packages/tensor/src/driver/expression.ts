// The small language of rules.ts: numbers of elements and conditions over the fields of a command. One tree, three
// readers: the reference driver evaluates it, header.ts writes it as C++, and both report the names in it.
//
//   rows * width          + * / (rounds down) % of non-negative integers; C++ stops at the largest integer, never wraps
//   rows == 1 && bias     == != <= >= < > && || !; a tensor as a condition: whether it is there
//   ceil(n, 64)           n / 64, rounded up             strided(rows, stride, width)  what rows apart by stride take up
//   sum(parts.n)          over a list of parts           first(parts.n), last(parts.n), length(parts)
//   count(x), bytes(x), dtype(x), i32                    elements, bytes and dtype code of a tensor; code of a dtype
import { dtypes, type DType } from '../dtype.js';

export type Expression =
  | { readonly kind: 'number'; readonly value: number }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'call'; readonly name: string; readonly arguments: readonly Expression[] }
  | { readonly kind: 'not'; readonly of: Expression }
  | { readonly kind: 'operator'; readonly operator: string; readonly left: Expression; readonly right: Expression };

const levels = [['||'], ['&&'], ['==', '!=', '<=', '>=', '<', '>'], ['+'], ['*', '/', '%']];
const tokens = /\s*(?:(\d+)|([A-Za-z]\w*(?:\.\w+)?)|(\|\||&&|==|!=|<=|>=|[+*/%<>!(),]))/y;

function tokenize(text: string): string[] {
  const found: string[] = [];
  tokens.lastIndex = 0;
  while (tokens.lastIndex < text.trimEnd().length) {
    const match = tokens.exec(text);
    if (!match) throw new Error(`"${text}" is no expression`);
    found.push(match[1] ?? match[2] ?? match[3]);
  }
  return found;
}

class Parser {
  #at = 0;
  readonly #tokens: readonly string[];

  constructor(private readonly text: string) {
    this.#tokens = tokenize(text);
  }

  all(): Expression {
    const tree = this.#level(0);
    if (this.#at !== this.#tokens.length) throw new Error(`"${this.text}" goes on after an expression`);
    return tree;
  }

  #level(level: number): Expression {
    if (level === levels.length) return this.#operand();
    let left = this.#level(level + 1);
    while (levels[level].includes(this.#tokens[this.#at]))
      left = { kind: 'operator', operator: this.#tokens[this.#at++], left, right: this.#level(level + 1) };
    return left;
  }

  #operand(): Expression {
    const token = this.#tokens[this.#at++];
    if (token === '!') return { kind: 'not', of: this.#operand() };
    if (token === '(') {
      const inside = this.#level(0);
      this.#take(')');
      return inside;
    }
    if (/^\d/.test(token)) return { kind: 'number', value: Number(token) };
    if (!/^[A-Za-z]/.test(token)) throw new Error(`"${this.text}" has ${token} where a value should be`);
    if (this.#tokens[this.#at] !== '(') return { kind: 'name', name: token };
    this.#at++;
    const list = [this.#level(0)];
    while (this.#tokens[this.#at] === ',') {
      this.#at++;
      list.push(this.#level(0));
    }
    this.#take(')');
    return { kind: 'call', name: token, arguments: list };
  }

  #take(token: string): void {
    if (this.#tokens[this.#at++] !== token) throw new Error(`"${this.text}" lacks a ${token}`);
  }
}

const parsed = new Map<string, Expression>();

/** The tree of an expression. @throws Error for text that is none */
export function parseExpression(text: string): Expression {
  let tree = parsed.get(text);
  if (!tree) parsed.set(text, (tree = new Parser(text).all()));
  return tree;
}

/** What names stand for when an expression is evaluated. */
export interface Scope {
  /** An integer field, or 1 and 0 for a tensor that is there or absent. */
  value(name: string): number;
  tensor(name: string): { readonly bytes: number; readonly dtypeCode: number; readonly count: number };
  /** The values of a field over a list. */
  list(path: string): readonly number[];
}

export const dtypeCodeOf = (name: string): number | undefined => dtypes[name as DType]?.code;

/** Rows of `width` elements, `stride` from one to the next. */
const strided = (rows: number, stride: number, width: number): number => (rows === 0 ? 0 : (rows - 1) * stride + width);

const operators: Readonly<Record<string, (a: number, b: number) => number>> = {
  '+': (a, b) => a + b,
  '*': (a, b) => a * b,
  '/': (a, b) => Math.floor(a / b),
  '%': (a, b) => a % b,
  '==': (a, b) => Number(a === b),
  '!=': (a, b) => Number(a !== b),
  '<=': (a, b) => Number(a <= b),
  '>=': (a, b) => Number(a >= b),
  '<': (a, b) => Number(a < b),
  '>': (a, b) => Number(a > b),
  '&&': (a, b) => Number(a !== 0 && b !== 0),
  '||': (a, b) => Number(a !== 0 || b !== 0),
};

function call(name: string, list: readonly Expression[], scope: Scope): number {
  const [first] = list;
  const path = first.kind === 'name' ? first.name : '';
  switch (name) {
    case 'sum':
      return scope.list(path).reduce((a, b) => a + b, 0);
    case 'first':
      return scope.list(path)[0] ?? 0;
    case 'last':
      return scope.list(path).at(-1) ?? 0;
    case 'length':
      return scope.value(path);
    case 'count':
      return scope.tensor(path).count;
    case 'bytes':
      return scope.tensor(path).bytes;
    case 'dtype':
      return scope.tensor(path).dtypeCode;
  }
  const values = list.map((item) => evaluate(item, scope));
  if (name === 'ceil') return Math.ceil(values[0] / values[1]);
  if (name === 'strided') return strided(values[0], values[1], values[2]);
  throw new Error(`there is no function ${name}`);
}

/** The value of an expression; a condition gives 1 or 0. Exact up to 2^53, and too large beyond, as the checks need. */
export function evaluate(tree: Expression, scope: Scope): number {
  switch (tree.kind) {
    case 'number':
      return tree.value;
    case 'name':
      return dtypeCodeOf(tree.name) ?? scope.value(tree.name);
    case 'call':
      return call(tree.name, tree.arguments, scope);
    case 'not':
      return Number(evaluate(tree.of, scope) === 0);
    case 'operator':
      return operators[tree.operator](evaluate(tree.left, scope), evaluate(tree.right, scope));
  }
}
