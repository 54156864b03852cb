import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { kinds } from './faults/every-kind.mjs';
import { jsonText, mutateBytes, mutateJson, mutateText } from './mutate.mjs';
import { fuzz } from './parent.mjs';
import { Random } from './random.mjs';

const folder = mkdtempSync(join(tmpdir(), 'q-fuzz-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

test('every kind of fault is counted, and what comes behind it still runs', async () => {
  const fuzzers = new URL('faults/', import.meta.url);
  const options = { seed: 1, seconds: 120, inputs: kinds.length, faultsFolder: folder, fuzzers };
  const { inputs, faults } = await fuzz('every-kind', options);
  assert.equal(inputs, kinds.length);
  const found = Object.fromEntries(faults.map(({ index, kind }) => [kinds[index], kind]));
  assert.deepEqual(found, {
    crash: 'crash',
    busy: 'hang',
    never: 'hang',
    untyped: 'untyped error',
    pollution: 'pollution',
    leak: 'leak',
    memory: 'memory',
    rejection: 'unhandled rejection',
  });
  const saved = readdirSync(folder).find((name) => name.endsWith(`-${kinds.indexOf('untyped')}`));
  assert.match(readFileSync(join(folder, saved, 'fault.txt'), 'utf8'), /TypeError.*--seed 1 --index 4/s);
});

test('an input follows from its seed', () => {
  const value = { a: [1, 2, { b: 'text' }], c: null, d: true };
  const made = (seed) => {
    const random = new Random(seed, 'x', 7);
    const text = jsonText(mutateJson(random, value));
    return [text, mutateBytes(random, Buffer.from(text)).toString('hex'), mutateText(random, text)];
  };
  assert.deepEqual(made(3), made(3));
  assert.notDeepEqual(made(3), made(4));
  assert.deepEqual(value, { a: [1, 2, { b: 'text' }], c: null, d: true });
});
