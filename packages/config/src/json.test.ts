import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ConfigError } from './errors.js';
import type { JsonObject } from './json.js';
import { parseConfigText, toPythonJson } from './json.js';
import { pythonFloat } from './python-json.js';

const root = fileURLToPath(new URL('../fixtures/', import.meta.url));
const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.json'));

test('every file written by Python is reproduced byte for byte from its values', () => {
  expect(files.length).toBeGreaterThan(50);
  for (const file of files) {
    const text = readFileSync(root + file, 'utf8');
    const { value, floats, indent } = parseConfigText(text, file);
    expect(toPythonJson(value, { floats, indent, exactFloats: true }).trimEnd(), file).toBe(text.trimEnd());
  }
});

test('the known float fields alone reproduce what transformers writes', () => {
  for (const file of files.filter((name) => name.includes('bnb.') || /models\/.*config\.json/.test(name))) {
    const text = readFileSync(root + file, 'utf8');
    expect(toPythonJson(parseConfigText(text, file).value).trimEnd(), file).toBe(text.trimEnd());
  }
});

test('integers beside a float keep being integers', () => {
  const text =
    '{\n  "sequence_bias": [\n    [\n      [\n        7\n      ],\n      2.0\n    ]\n  ],\n  "x": {\n    "a": 1.0,\n    "b": 1\n  }\n}\n';
  const { value, floats } = parseConfigText(text, 'x');
  expect([...floats]).toEqual(['sequence_bias/0/1', 'x/a']);
  expect(toPythonJson(value, { floats, exactFloats: true })).toBe(text);
  expect(toPythonJson({ sequence_bias: value.sequence_bias })).toContain('2.0');
});

test('floats are spelled as in Python', () => {
  const cases: [number, string][] = [
    [6, '6.0'],
    [1e-5, '1e-05'],
    [0.0001, '0.0001'],
    [1e16, '1e+16'],
    [1e15, '1000000000000000.0'],
    [1.5e-7, '1.5e-07'],
    [-0, '-0.0'],
    [0.1, '0.1'],
    [1e22, '1e+22'],
    [123.456, '123.456'],
    [5e-324, '5e-324'],
  ];
  for (const [x, text] of cases) expect(pythonFloat(x)).toBe(text);
  fc.assert(
    fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (x) => Object.is(Number(pythonFloat(x)), x)),
  );
});

test('any JSON object survives writing and reading', () => {
  const json = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 }));
  fc.assert(
    fc.property(json, (value) => {
      const plain = JSON.parse(JSON.stringify(value)) as JsonObject;
      for (const sortKeys of [false, true]) expect(JSON.parse(toPythonJson(plain, { sortKeys }))).toEqual(plain);
    }),
  );
});

test('a text that is no JSON object is a ConfigError', () => {
  for (const text of ['', '{', '[]', '1', 'null', '{"a": NaN}'])
    expect(() => parseConfigText(text, 'x')).toThrow(ConfigError);
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        parseConfigText(text, 'x');
      } catch (error) {
        expect(error).toBeInstanceOf(ConfigError);
      }
    }),
  );
});

test('hostile texts: deep nesting, long strings, __proto__', () => {
  expect(() => parseConfigText(`{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`, 'x')).toThrow(
    /nested more than 100 deep/,
  );
  expect([...parseConfigText(`{"a": "${'x\\"'.repeat(1_000_000)}", "b": 1.0}`, 'x').floats]).toEqual(['b']);
  const { value } = parseConfigText('{"__proto__": {"polluted": 1}, "constructor": 2}', 'x');
  expect(toPythonJson(value)).toContain('__proto__');
  expect(({} as Record<string, unknown>).polluted).toBeUndefined();
});
