import fc from 'fast-check';
import { expect, test } from 'vitest';
import { dtypeBytes, DTYPE_NAMES, parseDType } from './dtype.js';
import { ConfigError, DTypeError } from './errors.js';
import { assertKnownKeys, nearest } from './names.js';

test('the nearest name forgives case, underscores and typing errors', () => {
  const names = ['maxNewTokens', 'maxLength', 'topK', 'topP', 'temperature'];
  for (const [typed, meant] of [
    ['max_new_tokens', 'maxNewTokens'],
    ['maxNewToken', 'maxNewTokens'],
    ['temprature', 'temperature'],
    ['tpoK', 'topK'],
    ['top_p', 'topP'],
  ])
    expect(nearest(typed, names)).toBe(meant);
  expect(nearest('deviceMap', names)).toBeUndefined();
  expect(nearest('x', [])).toBeUndefined();
});

test('any name is nearest to itself, and to itself with one letter more', () => {
  const word = fc.stringMatching(/^[a-z]{4,12}$/);
  fc.assert(
    fc.property(
      word,
      fc.array(word),
      (name, others) => nearest(name, [name, ...others]) === name && nearest(`${name}z`, [name]) === name,
    ),
  );
});

test('unknown options throw with the nearest name', () => {
  expect(() => assertKnownKeys('load', { devceMap: 'auto' }, ['deviceMap', 'signal'])).toThrow(
    '[load] unknown option devceMap; did you mean deviceMap?',
  );
  expect(() => assertKnownKeys('load', { zzz: 1 }, ['deviceMap', 'signal'])).toThrow('valid names: deviceMap, signal');
  expect(() => assertKnownKeys('load', [] as object, ['deviceMap'])).toThrow(ConfigError);
  expect(() => assertKnownKeys('load', null as unknown as object, [])).toThrow(ConfigError);
  assertKnownKeys('load', { signal: undefined }, ['signal']);
});

test('dtypes by all of their names', () => {
  const cases = {
    float32: ['torch.float32', 'fp32', 'float', 'F32'],
    float16: ['torch.float16', 'half', 'fp16', 'torch.half'],
    bfloat16: ['bf16', 'torch.bfloat16', 'BF16'],
    int64: ['long'],
    bool: ['bool', 'boolean'],
  };
  for (const [name, words] of Object.entries(cases)) for (const word of words) expect(parseDType(word)).toBe(name);
  expect(DTYPE_NAMES.map(dtypeBytes)).toEqual([4, 2, 2, 1, 1, 4, 8, 1]);
  for (const bad of ['float64', '', 'constructor', 'toString', 7, null, undefined])
    expect(() => parseDType(bad)).toThrow(DTypeError);
});
