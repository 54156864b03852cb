// Programs that esbuild bundled run, in the ways that the README gives.
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const packages = fileURLToPath(new URL('../..', import.meta.url));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'q-bundle-'));
  await mkdir(join(folder, 'node_modules/@q'), { recursive: true });
  for (const name of await readdir(packages))
    if (name !== 'node_modules') await symlink(join(packages, name), join(folder, 'node_modules/@q', name));
  await writeFile(
    join(folder, 'program.ts'),
    `import { AutoModelForCausalLM } from '@q/transformers';
     async function main() {
       const model = await AutoModelForCausalLM.fromPretrained('@q/nano', { loadIn4bit: true });
       const { newTokens } = await model.generate({ prompt: 'const x =', maxNewTokens: 4 });
       console.log(JSON.stringify(newTokens));
       await model.dispose();
     }
     main().catch((error) => { console.log(String(error)); process.exitCode = 1; });`,
  );
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const native = ['@q/kernels-cpu', '@q/kernels-cuda', '@q/nano'];

/** Bundles the program, runs it, and gives what it prints. */
async function run(format: 'esm' | 'cjs', options: { external?: string[]; packages?: 'external' }): Promise<string> {
  const outfile = join(folder, `program.${format === 'esm' ? 'mjs' : 'cjs'}`);
  await build({
    entryPoints: [join(folder, 'program.ts')],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format,
    logLevel: 'silent',
    ...options,
  });
  const { stdout, stderr } = spawnSync(process.execPath, [outfile], { encoding: 'utf8', cwd: folder });
  return stdout + stderr;
}

describe.each(['esm', 'cjs'] as const)('%s', (format) => {
  it.each([
    ['every package external', { packages: 'external' as const }],
    ['@q/* external', { external: ['@q/*'] }],
    ['all but the native packages in the bundle', { external: native }],
  ])(
    '%s',
    async (_, options) => {
      expect(await run(format, options)).toMatch(/^\[\[\d+,\d+,\d+,\d+\]\]\n$/);
    },
    120_000,
  );
});

it('says what to leave out of a bundle that holds the CPU device', async () => {
  expect(await run('esm', { external: ['@q/kernels-cuda', '@q/nano'] })).toMatch(/--external:@q\/\*/);
});
