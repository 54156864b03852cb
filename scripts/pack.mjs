// Packs every package as npm would publish it, into a folder (default: packed), from where a project can install them.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { root, say, step } from './lib/commands.mjs';
import { setup } from './lib/setup.mjs';
import { workspaces } from './lib/stamps.mjs';

const [folder = 'packed', ...rest] = process.argv.slice(2);
if (rest.length > 0 || folder.startsWith('-')) {
  say('pack: give the folder to write, or nothing');
  process.exit(2);
}
const target = resolve(process.env.INIT_CWD ?? process.cwd(), folder);
setup({ all: true });
mkdirSync(target, { recursive: true });
const pnpm = [process.execPath, join(root, 'node_modules/pnpm/bin/pnpm.cjs')];
for (const name of workspaces())
  step(`Packing ${name}`, [...pnpm, '--dir', join(root, name), 'pack', '--pack-destination', target]);
// For package managers that look for the packages among each other in the registry.
const files = Object.fromEntries(
  workspaces().map((name) => {
    const manifest = JSON.parse(readFileSync(join(root, name, 'package.json'), 'utf8'));
    const file = `${manifest.name.replace('@', '').replace('/', '-')}-${manifest.version}.tgz`;
    return [manifest.name, `file:${join(target, file)}`];
  }),
);
writeFileSync(join(target, 'overrides.json'), `${JSON.stringify(files, null, 2)}\n`);
const shown = relative(process.env.INIT_CWD ?? process.cwd(), target);
say(`In a project: npm install ${join(shown.startsWith('..') ? target : shown, '*.tgz')}`);
