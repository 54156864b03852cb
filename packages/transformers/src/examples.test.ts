import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it, vi } from 'vitest';

// Runs every program of docs/examples, and looks at what it prints.
const examples = fileURLToPath(new URL('../../../docs/examples/', import.meta.url));
const expected: Readonly<Record<string, readonly RegExp[]>> = {
  'stream.ts': [/bytes of weights on cpu.*"nf4":56/, /length: \d+ tokens a second/],
  'batch.ts': [/"const x =.*" 16 length\n/, /"import \{ readFile \} from/, /48 tokens/],
  'save.ts': [/model-00001-of-0000\d\.safetensors/, /56\d{5} bytes on disk, bitsandbytes/, /the same text as before/],
  'plan.ts': [/of weights,/, /model\.embed_tokens/, /model\.layers\.\d+ is on 1/],
};
let ran = 0;

it.each(Object.entries(expected))('%s', async (name, patterns) => {
  let printed = '';
  const text = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value));
  const log = vi
    .spyOn(console, 'log')
    .mockImplementation((...values) => void (printed += `${values.map(text).join(' ')}\n`));
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((value) => ((printed += String(value)), true));
  try {
    await import(/* @vite-ignore */ join(examples, name));
  } finally {
    log.mockRestore();
    write.mockRestore();
  }
  for (const pattern of patterns) expect(printed).toMatch(pattern);
  ran += 1;
});

it('runs all examples that there are', () => {
  expect(readdirSync(examples).filter((name) => name.endsWith('.ts'))).toHaveLength(ran);
  expect(ran).toBe(4);
  console.log(`${ran} examples ran`);
});
