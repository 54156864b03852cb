import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { PythonFloat, pythonJson, pythonJsonFile } from '@q/config';
import { fixtureNames } from '../testing.js';
import { parseByteSize } from './size.js';
import { parsePythonJson } from './python-json-parse.js';

describe('parseByteSize', () => {
  it.each([
    ['5GB', 5e9],
    ['2GiB', 2 ** 31],
    ['500mb', 5e8],
    ['1.5 kB', 1500],
    ['7B', 7],
    [12, 12],
  ])('%s', (text, bytes) => expect(parseByteSize(text)).toBe(bytes));
  it.each(['', '5', 'GB', '-1GB', '5GBs', '0MB', '1e3MB', '5iB'])('refuses "%s"', (text) =>
    expect(() => parseByteSize(text)).toThrow(/is not a size/),
  );
  it.each([0, -1, 1.5, NaN])('refuses %d', (size) => expect(() => parseByteSize(size)).toThrow(/is not a size/));
});

describe('parsePythonJson', () => {
  it('a string without an end, or of millions of escapes, takes linear time', () => {
    const escapes = `{"a":"${String.raw`\n\"`.repeat(1_000_000)}`;
    expect(() => parsePythonJson(escapes)).toThrow(/a string has no end/);
    expect(parsePythonJson(`${escapes}","b":1.0}`)).toHaveProperty('b');
    expect(() => parsePythonJson(`[${'NaN,'.repeat(300_000)}1]`)).toThrow(/more than 262144 numbers/);
  });

  it.each(fixtureNames)('reads the configs of %s so that they are written back byte for byte', async (name) => {
    for (const file of ['config.json', 'generation_config.json']) {
      const text = await readFile(new URL(`../../fixtures/${name}/${file}`, import.meta.url), 'utf8');
      expect(pythonJsonFile(parsePythonJson(text))).toBe(text);
    }
  });
  it('tells floats, long integers and text apart', () => {
    const text =
      '{"a": [1, 1.0, -0.0, 1e-05, 12345678901234567890, NaN, -Infinity], "1.0": "say \\"1.5\\" \\u0000float", "b": {"c": 2}}';
    expect(parsePythonJson('[1.5, 12345678901234567890]')).toEqual([new PythonFloat(1.5), 12345678901234567890n]);
    expect(pythonJson(parsePythonJson(text))).toBe(text);
    expect(() => parsePythonJson('{"a": 01}', 'config.json')).toThrow(/config.json/);
    expect(() => parsePythonJson('{"a": 1.}', 'config.json')).toThrow(/not valid JSON/);
  });

  it('refuses what is too deep or too long, and takes the key of its own earlier mark', () => {
    expect(() => parsePythonJson(`${'['.repeat(200_000)}${']'.repeat(200_000)}`)).toThrow(/too deeply/);
    expect(() => parsePythonJson(`[${'9'.repeat(5000)}]`)).toThrow(/5000 digits/);
    expect(parsePythonJson('{"\\u0000float": "1.5"}')).toEqual({ '\u0000float': '1.5' });
  });
});
