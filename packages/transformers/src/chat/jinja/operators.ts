// Arithmetic as Python's: floor division, modulo by the divisor's sign, whole numbers of any size within a limit.
import { MAX_TEMPLATE_INTEGER_BITS } from '../../limits.js';
import type { Budget } from './budget.js';
import { numberOf } from './compare.js';
import { fail, LimitError } from './errors.js';
import { percentFormat } from './format.js';
import type { BinaryOperator } from './nodes.js';
import { append } from './text.js';
import { defined, Float, isInteger, isList, Tuple, typeName, type Value } from './values.js';

const LARGEST = 2n ** BigInt(MAX_TEMPLATE_INTEGER_BITS);

/** A whole number as a value. @throws LimitError when it is too large. */
export function integer(value: bigint): number | bigint {
  if (value > LARGEST || value < -LARGEST)
    throw new LimitError(`the chat template computes an integer of more than ${MAX_TEMPLATE_INTEGER_BITS} bits`);
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

const floorMod = (a: number, b: number): number => {
  const rest = a % b;
  return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest;
};

function floatOperation(operator: BinaryOperator, a: number, b: number): number {
  if (b === 0 && ['/', '//', '%'].includes(operator)) return fail('division by zero');
  switch (operator) {
    case '+':
      return a + b;
    case '-':
      return a - b;
    case '*':
      return a * b;
    case '/':
      return a / b;
    case '//':
      return Math.floor(a / b);
    case '%':
      return floorMod(a, b);
    case '**':
      return a ** b;
  }
}

function bigPower(a: bigint, b: bigint): bigint {
  const bits = BigInt(a.toString(2).length) * b;
  if (a * a > 1n && bits > 2n * BigInt(MAX_TEMPLATE_INTEGER_BITS))
    throw new LimitError(`the chat template computes an integer of more than ${MAX_TEMPLATE_INTEGER_BITS} bits`);
  return a ** b;
}

function bigOperation(operator: BinaryOperator, a: bigint, b: bigint): bigint {
  if (b === 0n && (operator === '//' || operator === '%')) return fail('integer division or modulo by zero');
  const truncated = operator === '//' || operator === '%' ? a / b : 0n;
  const floored = truncated * b !== a && a < 0n !== b < 0n ? truncated - 1n : truncated;
  switch (operator) {
    case '+':
      return a + b;
    case '-':
      return a - b;
    case '*':
      return a * b;
    case '//':
      return floored;
    case '%':
      return a - floored * b;
    default:
      return bigPower(a, b);
  }
}

function numeric(operator: BinaryOperator, a: Value, b: Value, budget: Budget): Value | undefined {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x === undefined || y === undefined) return undefined;
  const isFloat = a instanceof Float || b instanceof Float || operator === '/' || (operator === '**' && y < 0);
  if (isFloat) return new Float(floatOperation(operator, Number(x), Number(y)));
  if (typeof x === 'number' && typeof y === 'number' && operator !== '**') {
    const exact = floatOperation(operator, x, y);
    if (Number.isSafeInteger(exact)) return exact + 0;
  }
  budget.bigInteger(operator === '**' ? 'power' : 'arithmetic');
  return integer(bigOperation(operator, BigInt(x), BigInt(y)));
}

/** `text * count`, `list * count`. */
function repeat(sequence: Value, count: number, budget: Budget): Value | undefined {
  const times = Math.max(0, count);
  if (typeof sequence === 'string') {
    budget.write(sequence.length * times);
    return sequence.repeat(times);
  }
  const items = isList(sequence) ? sequence : sequence instanceof Tuple ? sequence.items : undefined;
  if (!items || items.length === 0) return items && sequence;
  budget.step(items.length * times);
  const repeated = Array.from({ length: times }, () => items).flat() as Value[];
  return isList(sequence) ? repeated : new Tuple(repeated);
}

function sequences(operator: BinaryOperator, a: Value, b: Value, budget: Budget): Value | undefined {
  if (operator === '*') {
    const [x, y] = [numberOf(a), numberOf(b)];
    if (typeof y === 'number' && !(b instanceof Float)) return repeat(a, y, budget);
    return typeof x === 'number' && !(a instanceof Float) ? repeat(b, x, budget) : undefined;
  }
  if (operator !== '+') return undefined;
  if (typeof a === 'string' && typeof b === 'string') return append(a, b, budget);
  const both =
    isList(a) && isList(b) ? [a, b] : a instanceof Tuple && b instanceof Tuple ? [a.items, b.items] : undefined;
  if (!both) return undefined;
  budget.step(both[0].length + both[1].length);
  const items = [...both[0], ...both[1]];
  return isList(a) ? items : new Tuple(items);
}

/** @throws TemplateError for types that do not go together. */
export function binaryOperation(operator: BinaryOperator, a: Value, b: Value, budget: Budget): Value {
  defined(a);
  if (operator === '%' && typeof a === 'string') return percentFormat(a, b, budget);
  defined(b);
  return (
    numeric(operator, a, b, budget) ??
    sequences(operator, a, b, budget) ??
    fail(
      operator === '+' && typeof a === 'string'
        ? `can only concatenate str (not "${typeName(b)}") to str`
        : `unsupported operand type(s) for ${operator}: '${typeName(a)}' and '${typeName(b)}'`,
    )
  );
}

export function negate(value: Value): Value {
  if (value instanceof Float) return new Float(-value.value);
  const number = numberOf(defined(value));
  if (number === undefined) return fail(`bad operand type for unary -: '${typeName(value)}'`);
  return isInteger(value) ? integer(-BigInt(value)) : 0 - Number(number);
}

/** As int(float). @throws TemplateError for infinity and nan */
export function truncate(x: number): number | bigint {
  if (!Number.isFinite(x)) return fail(`cannot convert float ${Number.isNaN(x) ? 'NaN' : 'infinity'} to integer`);
  return integer(BigInt(Math.trunc(x)));
}
