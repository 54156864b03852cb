// What set-up did last, so that it does nothing when nothing changed.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { root } from './commands.mjs';

const file = join(root, 'node_modules/.q-setup.json');

export function readStamp() {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return {}; // none yet, or damaged: everything is done again
  }
}

export function writeStamp(changes) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, JSON.stringify({ ...readStamp(), ...changes }, null, 2));
}

/** Folders of the workspace, relative to the repository. */
export const workspaces = () =>
  ['packages', 'apps']
    .flatMap((parent) =>
      existsSync(join(root, parent)) ? readdirSync(join(root, parent)).map((name) => `${parent}/${name}`) : [],
    )
    .filter((folder) => existsSync(join(root, folder, 'package.json')));

/** Hash of what decides which packages are installed. */
export function dependencyHash() {
  const hash = createHash('sha256').update(`${process.platform} ${process.arch}`);
  for (const path of [
    'pnpm-lock.yaml',
    'pnpm-workspace.yaml',
    'package.json',
    ...workspaces().map((folder) => `${folder}/package.json`),
  ]) {
    hash.update(`\0${path}\0`).update(readFileSync(join(root, path)));
  }
  return hash.digest('hex');
}

// What a build reads, in each package; tests are left out.
const sources = [
  'src',
  'csrc',
  'native',
  'scripts',
  'CMakeLists.txt',
  'package.json',
  'tsconfig.json',
  'tsup.config.js',
];

function* filesIn(path) {
  const info = statSync(path, { throwIfNoEntry: false });
  if (!info) return;
  if (!info.isDirectory()) yield [path, info];
  else for (const name of readdirSync(path).sort()) yield* filesIn(join(path, name));
}

/** Hash of names, sizes and times of all sources, of the Node version and of what the builds left behind. */
export function sourceHash() {
  const { CXX, CXXFLAGS, CUDACXX, CUDA_HOME, CUDA_PATH, Q_CUDA_BUILD, Q_CUDA_ARCHS } = process.env;
  const hash = createHash('sha256').update(
    JSON.stringify([process.version, CXX, CXXFLAGS, CUDACXX, CUDA_HOME, CUDA_PATH, Q_CUDA_BUILD, Q_CUDA_ARCHS]),
  );
  const paths = [
    'turbo.json',
    'tooling',
    ...workspaces().flatMap((folder) => sources.map((name) => `${folder}/${name}`)),
  ];
  for (const path of paths)
    for (const [name, info] of filesIn(join(root, path)))
      if (!name.endsWith('.test.ts')) hash.update(`\0${name} ${info.size} ${info.mtimeMs}`);
  for (const folder of workspaces())
    for (const output of ['dist', 'build/Release']) hash.update(`\0${existsSync(join(root, folder, output))}`);
  return hash.digest('hex');
}
