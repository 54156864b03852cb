import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import * as config from '@q/config';
import * as kernelsCpu from '@q/kernels-cpu';
import * as kernelsCuda from '@q/kernels-cuda';
import * as models from '@q/models';
import * as nano from '@q/nano';
import * as tensor from '@q/tensor';
import ts from 'typescript';
import * as transformers from './index.js';

// Runs every TypeScript and JavaScript snippet of the READMEs that have no test of their own, in a temporary folder.
const packages: Readonly<Record<string, unknown>> = {
  '@q/config': config,
  '@q/kernels-cpu': kernelsCpu,
  '@q/kernels-cuda': kernelsCuda,
  '@q/models': models,
  '@q/nano': nano,
  '@q/tensor': tensor,
  '@q/transformers': transformers,
};
const before = process.cwd();
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'q-readme-'));
  process.chdir(folder);
});
afterAll(async () => {
  process.chdir(before);
  await rm(folder, { recursive: true, force: true });
});

const AsyncFunction = (async () => {}).constructor as new (
  ...names: string[]
) => (...values: unknown[]) => Promise<void>;

async function runSnippets(path: string): Promise<{ snippets: number; printed: string }> {
  const readme = await readFile(new URL(`../../../${path}`, import.meta.url), 'utf8');
  const snippets = [...readme.matchAll(/```[tj]s\n([\s\S]*?)```/g)].map(([, code]) => code);
  let printed = '';
  const print = vi.fn(
    (...values: unknown[]) =>
      void (printed += values.map((value) => (typeof value === 'string' ? value : JSON.stringify(value))).join(' ')),
  );
  for (const code of snippets) {
    const body = code.replace(/^import (\{[^}]*\}) from '(@q\/[a-z-]+)';$/gm, "const $1 = packages['$2'];");
    const { outputText } = ts.transpileModule(`async function run() {\n${body}\n}`, {
      compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
    });
    await new AsyncFunction('packages', 'console', 'process', `${outputText}\nawait run();`)(
      packages,
      { log: print },
      { stdout: { write: print } },
    );
  }
  expect(print).toHaveBeenCalled();
  return { snippets: snippets.length, printed };
}

it.each([
  ['README.md', 3],
  ['packages/transformers/README.md', 3],
  ['packages/models/README.md', 1],
  ['packages/tensor/README.md', 1],
  ['packages/nano/README.md', 1],
  ['packages/kernels-cpu/README.md', 1],
  ['packages/kernels-cuda/README.md', 1],
  ['docs/gpus.md', 1],
])('%s', async (path, snippets) => {
  expect((await runSnippets(path)).snippets).toBe(snippets);
});

it('the quick start wrote a model', async () => {
  expect((await stat(join(folder, 'nano-nf4', 'model.safetensors'))).size).toBeLessThan(6e6);
});

it('docs/security.md has every limit', async () => {
  const root = new URL('../../../', import.meta.url);
  const document = await readFile(new URL('docs/security.md', root), 'utf8');
  const files: string[] = [];
  for (const name of await readdir(new URL('packages', root)))
    for (const path of await readdir(new URL(`packages/${name}/src`, root), { recursive: true }))
      if (path.endsWith('limits.ts')) files.push(`${name}/src/${path}`);
  expect(files.length).toBeGreaterThan(1);
  const missing: string[] = [];
  for (const file of files) {
    const source = (await readFile(new URL(`packages/${file}`, root), 'utf8')).replace(
      /^export interface .*?^}/gms,
      '',
    );
    // Constants, and the entries of an object of them.
    for (const [, name] of source.matchAll(/^(?:export const| {2}(?=\w+: [\d(]))\s*(\w+)(?::| =)/gm))
      if (!document.includes(`\`${name}\``) && !document.includes(`of \`${name}\``)) missing.push(`${file}: ${name}`);
  }
  expect(missing.filter((name) => !/: (hubLimits|TEMPLATE_LIMITS|loaderLimits)$/.test(name))).toEqual([]);
});
