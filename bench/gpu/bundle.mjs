// Bundles the GPU suite and the q command into FOLDER, with the addons and nano beside them, for a machine that has
// nothing but Node. Usage: node bench/gpu/bundle.mjs FOLDER; (after `pnpm run build`)
import { cpSync, existsSync, mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = process.argv[2];
if (!folder) throw new Error('usage: node bench/gpu/bundle.mjs FOLDER');

const { build } = createRequire(createRequire(join(root, 'package.json')).resolve('tsup'))('esbuild');
const source = (name) => join(root, 'packages', name, 'src');
await build({
  entryPoints: {
    suite: join(root, 'bench/gpu/suite.ts'),
    shapes: join(root, 'bench/gpu/shapes.ts'),
    q: join(root, 'apps/cli/src/main.ts'),
  },
  outdir: join(folder, 'dist'),
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  nodePaths: [join(root, 'apps/cli/node_modules'), join(root, 'packages/transformers/node_modules')],
  alias: {
    '@q/tensor/conformance': join(source('tensor'), 'conformance/index.ts'),
    ...Object.fromEntries(
      [
        'config',
        'device-map',
        'tensor',
        'loader',
        'models',
        'generate',
        'nano',
        'kernels-cpu',
        'kernels-cuda',
        'transformers',
      ].map((name) => [`@q/${name}`, join(source(name), 'index.ts')]),
    ),
  },
  banner: {
    js: "import { createRequire as makeRequire } from 'node:module'; const require = makeRequire(import.meta.url);",
  },
});
for (const name of ['kernels-cpu/build/Release/q_cpu.node', 'kernels-cuda/build/Release/q_cuda.node']) {
  const from = join(root, 'packages', name);
  if (!existsSync(from)) continue;
  mkdirSync(join(folder, 'build/Release'), { recursive: true });
  cpSync(from, join(folder, 'build/Release', name.split('/').pop()));
}
cpSync(join(root, 'bench/gpu/sanitize.mjs'), join(folder, 'dist/sanitize.mjs'));
cpSync(join(root, 'bench/gpu/shapes.json'), join(folder, 'dist/shapes.json'));
cpSync(join(root, 'apps/cli/package.json'), join(folder, 'package.json'));
cpSync(join(root, 'packages/nano/model'), join(folder, 'model'), { recursive: true });
