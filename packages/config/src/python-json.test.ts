import { describe, expect, it } from 'vitest';
import { compareCodePoints, pythonFloat, PythonFloat, pythonJson, pythonJsonFile } from './python-json.js';

describe('pythonFloat', () => {
  it.each([
    [1, '1.0'],
    [0, '0.0'],
    [-0, '-0.0'],
    [0.5, '0.5'],
    [-12.25, '-12.25'],
    [0.0001, '0.0001'],
    [0.00001, '1e-05'],
    [1.5e-7, '1.5e-07'],
    [1e15, '1000000000000000.0'],
    [1e16, '1e+16'],
    [1.25e22, '1.25e+22'],
    [123456789.125, '123456789.125'],
    [0.1, '0.1'],
    [5e-324, '5e-324'],
    [0.20668335258960724, '0.20668335258960724'],
    [1e100, '1e+100'],
    [NaN, 'NaN'],
    [-Infinity, '-Infinity'],
  ])('%d is %s', (value, text) => expect(pythonFloat(value)).toBe(text));
});

describe('pythonJson', () => {
  it('has the separators and escapes of json.dumps', () => {
    expect(pythonJson({ b: [1, 2.5, 'é"\n\x7f'], a: { c: null, d: true, e: [], f: {} } })).toBe(
      '{"b": [1, 2.5, "é\\"\\n\x7f"], "a": {"c": null, "d": true, "e": [], "f": {}}}',
    );
    expect(pythonJson('é\x7f\u{1f600}', { ensureAscii: true })).toBe('"\\u00e9\\u007f\\ud83d\\ude00"');
  });
  it('indents, sorts by code point and ends with a newline', () => {
    expect(
      pythonJsonFile(
        { '\u{1f600}': 1, '\uff5e': new PythonFloat(10000), a: [1, [2]], u: undefined },
        { ensureAscii: false },
      ),
    ).toBe('{\n  "a": [\n    1,\n    [\n      2\n    ]\n  ],\n  "\uff5e": 10000.0,\n  "\u{1f600}": 1\n}\n');
  });
  it('refuses what JSON does not have', () => expect(() => pythonJson({ f: () => 1 })).toThrow(/function/));
});

it('tells floats by key and path where the caller knows them', () => {
  const seen: string[] = [];
  const isFloat = (value: number, key: string, path: string) => {
    seen.push(`${key}:${path}`);
    return path === 'b/0' || !Number.isInteger(value);
  };
  expect(pythonJson({ a: 1, b: [2, { c: 3 }], d: -0, e: 1e21 }, { isFloat })).toBe(
    '{"a": 1, "b": [2.0, {"c": 3}], "d": 0, "e": 1000000000000000000000}',
  );
  expect(seen).toEqual(['a:a', 'b:b/0', 'c:b/1/c', 'd:d', 'e:e']);
});

it('orders names as their UTF-8 bytes', () => {
  const names = ['', 'a', 'ab', 'b', 'é', '\uffff', '\u{10000}', '\u{1f600}', '\u{1f600}a', '\u{1f601}', '\ud7ff'];
  const byBytes = [...names].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  expect([...names].sort(compareCodePoints)).toEqual(byBytes);
});
