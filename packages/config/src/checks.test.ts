import { expect, test } from 'vitest';
import { assertInteger, assertSignal, describeValue } from './checks.js';
import { ConfigError } from './errors.js';

test.each([
  [undefined, 'undefined'],
  [null, 'null'],
  [Number.NaN, 'NaN'],
  [-0.5, '-0.5'],
  [5n, '5n'],
  ['text', '"text"'],
  ['x'.repeat(50), `"${'x'.repeat(40)}..."`],
  [[], 'an empty list'],
  [[1], 'a list'],
  [{}, 'an object'],
  [Object.create(null), 'an object'],
  [new Int32Array(2), 'an Int32Array'],
  [new Map(), 'a Map'],
  [() => 1, 'a function'],
  [Symbol('s'), 'a symbol'],
])('%# is described', (value, text) => {
  expect(describeValue(value)).toBe(text);
});

test('whole numbers within a range, of type number', () => {
  for (const value of [1, 5, Number.MAX_SAFE_INTEGER]) assertInteger('op', 'count', value);
  assertInteger('op', 'count', 0, { min: 0 });
  for (const value of [0, -1, 1.5, Number.NaN, Infinity, 2 ** 53, '3', 3n, null, undefined, [3]])
    expect(() => assertInteger('op', 'count', value)).toThrow(ConfigError);
  expect(() => assertInteger('op', 'count', 9, { max: 8 })).toThrow(
    '[op] count is 9; it must be a whole number from 1 to 8',
  );
});

test('signals', () => {
  assertSignal('op', undefined);
  assertSignal('op', new AbortController().signal);
  for (const value of [null, {}, new AbortController(), 'x'])
    expect(() => assertSignal('op', value)).toThrow(ConfigError);
});
