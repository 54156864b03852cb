// Expressions, by the grammar of jinja2's parser.py. Chains of one operator are one node, so that only brackets nest.
import type { Arguments, BinaryOperator, CompareOperator, Expression, Filter } from './nodes.js';
import type { TokenStream } from './token-stream.js';

type Parse = (stream: TokenStream) => Expression;

const noArguments: Arguments = { positional: [], named: [] };

/** An expression with `a if b else c`. */
export function parseExpression(stream: TokenStream): Expression {
  return stream.nested(() => {
    let yes = parseWithoutCondition(stream);
    while (stream.skip('name', 'if')) {
      const test = parseWithoutCondition(stream);
      const no = stream.skip('name', 'else') ? parseExpression(stream) : undefined;
      yes = { kind: 'condition', test, yes, no };
    }
    return yes;
  });
}

/** `or` and what binds tighter. */
export const parseWithoutCondition: Parse = (stream) => {
  const items = [parseAnd(stream)];
  while (stream.skip('name', 'or')) items.push(parseAnd(stream));
  return items.length === 1 ? items[0] : { kind: 'or', items };
};

const parseAnd: Parse = (stream) => {
  const items = [parseNot(stream)];
  while (stream.skip('name', 'and')) items.push(parseNot(stream));
  return items.length === 1 ? items[0] : { kind: 'and', items };
};

const parseNot: Parse = (stream) =>
  stream.skip('name', 'not') ? { kind: 'not', operand: stream.nested(() => parseNot(stream)) } : parseCompare(stream);

const COMPARISONS = ['==', '!=', '<', '<=', '>', '>='];

function compareOperator(stream: TokenStream): CompareOperator | undefined {
  if (stream.isOperator(...COMPARISONS)) return stream.next().value as CompareOperator;
  if (stream.skip('name', 'in')) return 'in';
  if (stream.isName('not') && stream.following.type === 'name' && stream.following.value === 'in') {
    stream.next();
    stream.next();
    return 'not in';
  }
  return undefined;
}

const parseCompare: Parse = (stream) => {
  const first = parseSum(stream);
  const rest: [CompareOperator, Expression][] = [];
  for (let operator = compareOperator(stream); operator; operator = compareOperator(stream))
    rest.push([operator, parseSum(stream)]);
  return rest.length === 0 ? first : { kind: 'compare', first, rest };
};

const binary =
  (operators: readonly BinaryOperator[], operand: Parse): Parse =>
  (stream) => {
    const first = operand(stream);
    const rest: [BinaryOperator, Expression][] = [];
    while (stream.isOperator(...operators)) {
      const operator = stream.next().value as BinaryOperator;
      rest.push([operator, operand(stream)]);
    }
    return rest.length === 0 ? first : { kind: 'binary', first, rest };
  };

const parsePower: Parse = (stream) => binary(['**'], parseUnary)(stream);
const parseProduct: Parse = binary(['*', '/', '//', '%'], parsePower);
const parseConcat: Parse = (stream) => {
  const items = [parseProduct(stream)];
  while (stream.skip('operator', '~')) items.push(parseProduct(stream));
  return items.length === 1 ? items[0] : { kind: 'concat', items };
};
const parseSum: Parse = binary(['+', '-'], parseConcat);

const parseUnary: Parse = (stream) => parseFilters(stream, parseSigned(stream));

function parseSigned(stream: TokenStream): Expression {
  if (!stream.isOperator('-', '+')) return parsePostfix(stream, parsePrimary(stream));
  const kind = stream.next().value === '-' ? 'negative' : 'positive';
  return parsePostfix(stream, { kind, operand: stream.nested(() => parseSigned(stream)) });
}

const constants: Readonly<Record<string, boolean | null>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
};

/** A literal, a name, or something in brackets. */
export function parsePrimary(stream: TokenStream): Expression {
  const { type, value } = stream.current;
  if (type === 'name') {
    stream.next();
    if (Object.hasOwn(constants, value)) return { kind: 'constant', value: constants[value] };
    stream.sawName(value);
    return { kind: 'name', name: value };
  }
  if (type === 'string') {
    const parts: string[] = [];
    while (stream.is('string')) parts.push(stream.next().value);
    return { kind: 'constant', value: parts.join('') };
  }
  if (type === 'integer' || type === 'float') return parseNumber(stream);
  if (stream.skip('operator', '(')) {
    const tuple = parseTuple(stream, parseExpression, { bracketed: true });
    stream.expect('operator', ')');
    return tuple;
  }
  if (stream.skip('operator', '[')) return { kind: 'list', items: parseItems(stream, ']') };
  if (stream.skip('operator', '{')) return parseDict(stream);
  return stream.fail(`unexpected ${stream.describe()}`);
}

function parseNumber(stream: TokenStream): Expression {
  const { type, value } = stream.next();
  const digits = value.replaceAll('_', '');
  if (type === 'float') return { kind: 'float', value: Number(digits) };
  if (digits.length > 1000) stream.fail('a number has more than 1000 digits');
  const number = BigInt(digits);
  return Number.isSafeInteger(Number(number))
    ? { kind: 'constant', value: Number(number) }
    : { kind: 'integer', value: number };
}

function parseItems(stream: TokenStream, close: string): Expression[] {
  const items: Expression[] = [];
  while (!stream.isOperator(close)) {
    if (items.length > 0) stream.expect('operator', ',');
    if (stream.isOperator(close)) break;
    items.push(parseExpression(stream));
  }
  stream.next();
  return items;
}

function parseDict(stream: TokenStream): Expression {
  const entries: [Expression, Expression][] = [];
  while (!stream.isOperator('}')) {
    if (entries.length > 0) stream.expect('operator', ',');
    if (stream.isOperator('}')) break;
    const key = parseExpression(stream);
    stream.expect('operator', ':');
    entries.push([key, parseExpression(stream)]);
  }
  stream.next();
  return { kind: 'dict', entries };
}

/**
 * One expression, or several with commas between and then a tuple.
 * @param options.bracketed the empty tuple is allowed  @param options.end name that ends it
 */
export function parseTuple(
  stream: TokenStream,
  parse: Parse = parseExpression,
  { bracketed = false, end }: { bracketed?: boolean; end?: string } = {},
): Expression {
  const items: Expression[] = [];
  let isTuple = false;
  const ended = () =>
    stream.is('variableEnd') ||
    stream.is('blockEnd') ||
    stream.isOperator(')') ||
    (end !== undefined && stream.isName(end));
  while (!ended()) {
    items.push(parse(stream));
    if (!stream.skip('operator', ',')) break;
    isTuple = true;
  }
  if (isTuple || (bracketed && items.length === 0)) return { kind: 'tuple', items };
  return items[0] ?? stream.fail(`Expected an expression, got ${stream.describe()}`);
}

/** Attributes, items and calls behind an expression. */
function parsePostfix(stream: TokenStream, start: Expression): Expression {
  let node = start;
  for (;;) {
    if (stream.skip('operator', '.')) node = parseAttribute(stream, node);
    else if (stream.skip('operator', '[')) node = parseSubscript(stream, node);
    else if (stream.isOperator('(')) node = { kind: 'call', callee: node, args: parseArguments(stream) };
    else return node;
  }
}

function parseAttribute(stream: TokenStream, object: Expression): Expression {
  if (stream.is('name')) return { kind: 'attribute', object, name: stream.next().value };
  if (!stream.is('integer')) stream.fail('expected name or number');
  return { kind: 'item', object, index: parseNumber(stream) };
}

function parseSubscript(stream: TokenStream, object: Expression): Expression {
  const items: Expression[] = [];
  while (!stream.isOperator(']')) {
    if (items.length > 0) stream.expect('operator', ',');
    items.push(parseIndex(stream));
  }
  stream.next();
  return { kind: 'item', object, index: items.length === 1 ? items[0] : { kind: 'tuple', items } };
}

function parseIndex(stream: TokenStream): Expression {
  const bound = () => (stream.isOperator(':', ']', ',') ? undefined : parseExpression(stream));
  const bounds = [bound()];
  while (bounds.length < 3 && stream.skip('operator', ':')) bounds.push(bound());
  if (bounds.length > 1) return { kind: 'slice', bounds };
  return bounds[0] ?? stream.fail(`unexpected ${stream.describe()}`);
}

/** `(a, name=b, *list, **dict)`. */
export function parseArguments(stream: TokenStream): Arguments {
  const positional: Expression[] = [];
  const named: [string, Expression][] = [];
  let list: Expression | undefined;
  let dict: Expression | undefined;
  const ensure = (valid: boolean) => valid || stream.fail('invalid syntax for function call expression');
  stream.expect('operator', '(');
  for (let first = true; !stream.isOperator(')'); first = false) {
    if (!first) stream.expect('operator', ',');
    if (stream.isOperator(')')) break;
    if (stream.skip('operator', '*')) {
      ensure(!list && !dict);
      list = parseExpression(stream);
    } else if (stream.skip('operator', '**')) {
      ensure(!dict);
      dict = parseExpression(stream);
    } else if (stream.is('name') && stream.following.type === 'operator' && stream.following.value === '=') {
      ensure(!dict);
      const name = stream.next().value;
      stream.next();
      named.push([name, parseExpression(stream)]);
    } else {
      ensure(!list && !dict && named.length === 0);
      positional.push(parseExpression(stream));
    }
  }
  stream.next();
  return { positional, named, list, dict };
}

function dottedName(stream: TokenStream): string {
  let name = stream.expect('name').value;
  while (stream.skip('operator', '.')) name += `.${stream.expect('name').value}`;
  return name;
}

/** `|filter`, `is test` and calls behind an expression. */
function parseFilters(stream: TokenStream, start: Expression): Expression {
  let node = start;
  for (;;) {
    if (stream.skip('operator', '|')) node = parseFilter(stream, node);
    else if (stream.skip('name', 'is')) node = parseTest(stream, node);
    else if (stream.isOperator('(')) node = { kind: 'call', callee: node, args: parseArguments(stream) };
    else return node;
  }
}

/** The filter whose name comes next. */
export function parseFilter(stream: TokenStream, object: Expression | undefined): Filter {
  const name = dottedName(stream);
  return { kind: 'filter', object, name, args: stream.isOperator('(') ? parseArguments(stream) : noArguments };
}

function parseTest(stream: TokenStream, object: Expression): Expression {
  const negated = stream.skip('name', 'not');
  const name = dottedName(stream);
  const test: Expression = { kind: 'test', object, name, args: parseTestArguments(stream) };
  return negated ? { kind: 'not', operand: test } : test;
}

function parseTestArguments(stream: TokenStream): Arguments {
  if (stream.isOperator('(')) return parseArguments(stream);
  const begins = stream.isOperator('[', '{') || ['name', 'string', 'integer', 'float'].includes(stream.current.type);
  if (!begins || stream.isName('else', 'or', 'and')) return noArguments;
  if (stream.isName('is')) stream.fail('You cannot chain multiple tests with is');
  return { positional: [parsePostfix(stream, parsePrimary(stream))], named: [] };
}
