import fc from 'fast-check';
import { expect, it } from 'vitest';
import { duplicateKey } from './duplicates.js';

it.each([
  ['{"a":1,"b":{"a":1},"c":[{"a":1},{"a":2}]}', undefined],
  ['{"a":1,"a":2}', 'a'],
  ['{"x":{"a":1, "b":2 ,"a":3}}', 'a'],
  ['{"a\\\\":1,"a\\\\":2}', 'a\\'],
  ['{"a":"a","b":"b\\",\\"a\\":","\\u0061":1}', 'a'],
  ['{"":1,"":2}', ''],
  ['[[],{},"",{"__proto__":1,"__proto__":2}]', '__proto__'],
  ['"a"', undefined],
])('%s', (text, key) => expect(duplicateKey(text)).toBe(key));

it('no value that JSON.stringify wrote has a key twice', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => void expect(duplicateKey(JSON.stringify(value, null, 1))).toBeUndefined()),
    { seed: 3, numRuns: 1000 },
  );
});
