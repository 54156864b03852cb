import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import * as q from './index.js';

const text = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
const examples = [...text.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code);

test('every example of the README prints what it says', () => {
  expect(examples.length).toBe(4);
  for (const code of examples) {
    const printed: string[] = [];
    const body = code.replace(/import (\{.*?\}) from '@q\/config';/g, 'const $1 = q;');
    new Function('q', 'console', body)(q, {
      log: (...values: unknown[]) => printed.push(values.map(String).join(' ')),
    });
    expect(printed).toEqual([...code.matchAll(/console\.log\(.*\); \/\/ (.*)/g)].map(([, said]) => said));
    expect(printed.length).toBeGreaterThan(0);
  }
});

test('the sources import nothing of Node.js', () => {
  const root = new URL('.', import.meta.url);
  const sources = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(
    (name) => name.endsWith('.ts') && !name.endsWith('.test.ts'),
  );
  expect(sources.length).toBeGreaterThan(15);
  for (const name of sources)
    expect(readFileSync(new URL(name, root), 'utf8'), name).not.toMatch(
      /from 'node:|\bprocess\.|\bBuffer\b|\bconsole\./,
    );
});
