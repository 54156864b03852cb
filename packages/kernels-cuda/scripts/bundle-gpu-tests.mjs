// Bundles test/*.gpu.ts into build/gpu/*.gpu.mjs: single files that need a Node and build/Release/q_cuda.node, nothing
// else.
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const { build } = await import(createRequire(require.resolve('tsup/package.json')).resolve('esbuild'));
const tests = readdirSync(join(root, 'test')).filter((name) => name.endsWith('.gpu.ts'));
const packages = dirname(root.replace(/\/$/, ''));
const alias = Object.fromEntries(
  ['config', 'tensor', 'tensor/conformance'].map((name) => {
    const [folder, entry = ''] = name.split('/');
    return [`@q/${name}`, join(packages, folder, 'src', entry, 'index.ts')];
  }),
);
await build({
  entryPoints: tests.map((name) => join(root, 'test', name)),
  outdir: join(root, 'build', 'gpu'),
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  alias,
});
console.log(`bundled ${tests.join(', ')} into build/gpu`);
