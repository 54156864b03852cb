import fc from 'fast-check';
import { expect, it } from 'vitest';
import { maxJsonDepth } from '../limits.js';
import { scanJson } from './json-text.js';

it.each([
  ['{"a":1,"b":{"a":1},"c":[{"a":1},{"a":2}]}', undefined],
  ['{"a":1,"a":2}', 'a'],
  ['{"x":{"a":1, "b":2 ,"a":3}}', 'a'],
  ['{"a\\\\":1,"a\\\\":2}', 'a\\'],
  ['{"a":"a","b":"b\\",\\"a\\":","\\u0061":1}', 'a'],
  ['{"":1,"":2}', ''],
  ['[[],{},"",{"__proto__":1,"__proto__":2}]', '__proto__'],
  ['"a"', undefined],
])('%s', (text, key) => expect(scanJson(text).duplicate).toBe(key));

it('no value that JSON.stringify wrote has a key twice', () => {
  fc.assert(
    fc.property(
      fc.jsonValue(),
      (value) => void expect(scanJson(JSON.stringify(value, null, 1)).duplicate).toBeUndefined(),
    ),
    { seed: 3, numRuns: 1000 },
  );
});

it('stops at values that are nested too deeply', () => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);
  expect(scanJson(nested(maxJsonDepth))).toEqual({});
  expect(scanJson(nested(maxJsonDepth + 1)).tooDeep).toMatch(/100 levels/);
  expect(scanJson(`{"a":${'{"a":'.repeat(50_000)}1${'}'.repeat(50_001)}`).tooDeep).toMatch(/100 levels/);
});
