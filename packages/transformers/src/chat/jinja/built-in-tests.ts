// Tests (`value is test`), by jinja2's tests.py.
import type { BuiltIn } from './built-in.js';
import { compare, contains, equals, numberOf } from './compare.js';
import { fail } from './errors.js';
import { binaryOperation } from './operators.js';
import { isCase } from './letters.js';
import { str } from './text.js';
import {
  Callable,
  Dict,
  Float,
  isInteger,
  itemsOf,
  Iterator,
  Tuple,
  isList,
  Range,
  Undefined,
  type Value,
} from './values.js';

type Test = BuiltIn<Value>;

const simple = (run: (value: Value) => boolean): Test => ({ parameters: [], run: (_, value) => run(value) });

const other = (run: (value: Value, other: Value, budget: Parameters<Test['run']>[0]) => boolean): Test => ({
  parameters: ['other'],
  required: 1,
  run: (budget, value, against) => run(value, against!, budget),
});

const remainder = (divisor: number, wanted: number): Test => ({
  parameters: [],
  run: (budget, value) => {
    if (numberOf(value) === undefined) fail('odd and even are tests of numbers');
    return equals(binaryOperation('%', value, divisor, budget), wanted, budget);
  },
});

const cased = (changed: (text: string) => string): Test => ({
  parameters: [],
  run: (budget, value) => {
    const text = str(value, budget);
    budget.write(text.length);
    return isCase(text, changed);
  },
});

const isSequence = (value: Value): boolean =>
  typeof value === 'string' ||
  isList(value) ||
  value instanceof Tuple ||
  value instanceof Dict ||
  value instanceof Range ||
  value instanceof Undefined;

const naming = (known: (name: string) => boolean): Test => ({
  parameters: [],
  run: (budget, value) => {
    budget.key(value);
    return typeof value === 'string' && known(value);
  },
});

const equal = other((value, against, budget) => equals(value, against, budget));
const notEqual = other((value, against, budget) => !equals(value, against, budget));
const less = other((value, against, budget) => compare(value, against, budget) < 0);
const lessOrEqual = other((value, against, budget) => compare(value, against, budget) <= 0);
const greater = other((value, against, budget) => compare(value, against, budget) > 0);
const greaterOrEqual = other((value, against, budget) => compare(value, against, budget) >= 0);

/** @param known whether a filter or test has a name */
export const makeTests = (known: { filter: (name: string) => boolean; test: (name: string) => boolean }) =>
  new Map<string, Test>([
    ['defined', simple((value) => !(value instanceof Undefined))],
    ['undefined', simple((value) => value instanceof Undefined)],
    ['none', simple((value) => value === null)],
    ['boolean', simple((value) => typeof value === 'boolean')],
    ['true', simple((value) => value === true)],
    ['false', simple((value) => value === false)],
    ['integer', simple(isInteger)],
    ['float', simple((value) => value instanceof Float)],
    ['number', simple((value) => numberOf(value) !== undefined)],
    ['string', simple((value) => typeof value === 'string')],
    ['mapping', simple((value) => value instanceof Dict)],
    ['sequence', simple(isSequence)],
    [
      'iterable',
      {
        parameters: [],
        run: (budget, value) => value instanceof Iterator || itemsOf(value, budget) !== undefined,
      },
    ],
    ['callable', simple((value) => value instanceof Callable)],
    ['escaped', simple(() => false)],
    ['odd', remainder(2, 1)],
    ['even', remainder(2, 0)],
    [
      'divisibleby',
      {
        parameters: ['num'],
        required: 1,
        run: (budget, value, by) => equals(binaryOperation('%', value, by!, budget), 0, budget),
      },
    ],
    ['lower', cased((text) => text.toLowerCase())],
    ['upper', cased((text) => text.toUpperCase())],
    ['in', other((value, container, budget) => contains(container, value, budget))],
    ['sameas', other((value, against) => value === against)],
    ['filter', naming(known.filter)],
    ['test', naming(known.test)],
    ...['==', 'eq', 'equalto'].map((name) => [name, equal] as const),
    ...['!=', 'ne'].map((name) => [name, notEqual] as const),
    ...['<', 'lt', 'lessthan'].map((name) => [name, less] as const),
    ...['<=', 'le'].map((name) => [name, lessOrEqual] as const),
    ...['>', 'gt', 'greaterthan'].map((name) => [name, greater] as const),
    ...['>=', 'ge'].map((name) => [name, greaterOrEqual] as const),
  ]);
