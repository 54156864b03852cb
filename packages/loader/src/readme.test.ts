import { mkdir, readFile } from 'node:fs/promises';
import { afterAll, expect, it, vi } from 'vitest';
import ts from 'typescript';
import * as loader from './index.js';
import { temporary, unpack } from './testing.js';

// Runs every snippet of the README in a folder with the checkpoints that they name.
const temp = temporary();
const before = process.cwd();
afterAll(() => process.chdir(before));
const AsyncFunction = (async () => {}).constructor as new (
  ...args: string[]
) => (module: typeof loader, console: unknown) => Promise<void>;

it('every snippet of the README runs', async () => {
  const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8');
  const snippets = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]);
  expect(snippets).toHaveLength(5);
  await unpack('llama-sharded', await temp.sub('my-model'));
  await unpack('llama-nf4', await temp.sub('my-nf4-model'));
  await mkdir(temp.path, { recursive: true });
  process.chdir(temp.path);
  for (const snippet of snippets) {
    const body = snippet.replace(/^import (\{[^}]*\}) from '@q\/loader';$/m, 'const $1 = loader;');
    const { outputText } = ts.transpileModule(`export async function run() {\n${body}\n}`, {
      compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
    });
    const log = vi.fn();
    await new AsyncFunction(
      'loader',
      'console',
      `${outputText.replace('export async function', 'async function')}\nawait run();`,
    )(loader, { log });
    expect(log).toHaveBeenCalled();
  }
});
