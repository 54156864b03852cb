// Formats every source file, or with --check says which are not formatted: prettier for TypeScript, JavaScript and
// JSON, clang-format for C++ and CUDA. Both leave comments as they are, so their width is checked here.
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { format } from '@wasm-fmt/clang-format';
import { root, say } from './lib/commands.mjs';

const width = 120;
const check = process.argv.includes('--check');

/** Files that git knows or would know. */
function sources(...extensions) {
  const patterns = extensions.map((extension) => `*.${extension}`);
  const args = ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '--deduplicate', '--', ...patterns];
  const { status, stdout, stderr } = spawnSync('git', args, { cwd: root, encoding: 'utf8', maxBuffer: 2 ** 28 });
  if (status !== 0) throw new Error(stderr);
  return stdout.split('\0').filter((path) => path && !path.includes('/fixtures/'));
}

function runPrettier() {
  const command = [
    join(root, 'node_modules/prettier/bin/prettier.cjs'),
    check ? '--check' : '--write',
    '--log-level=warn',
  ];
  const { status } = spawnSync(process.execPath, [...command, '.'], { cwd: root, stdio: 'inherit' });
  return status === 0;
}

function runClangFormat() {
  const style = readFileSync(join(root, '.clang-format'), 'utf8');
  const generated = 'packages/tensor/native/q_ops.h';
  const wrong = sources('cpp', 'h', 'cu', 'cuh').filter((path) => {
    if (path === generated) return false;
    const text = readFileSync(join(root, path), 'utf8');
    const formatted = format(text, path.replace(/\.cuh?$/, '.cpp'), style);
    if (formatted !== text && !check) writeFileSync(join(root, path), formatted);
    return formatted !== text;
  });
  if (check) for (const path of wrong) say(`[warn] ${path}`);
  return !check || wrong.length === 0;
}

/** Formatters do not break comments. */
function checkComments() {
  let good = true;
  for (const path of sources('ts', 'mjs', 'js', 'cpp', 'h', 'cu', 'cuh')) {
    for (const [index, line] of readFileSync(join(root, path), 'utf8').split('\n').entries()) {
      if (line.length <= width || !/^\s*(\/\/|\/?\*)/.test(line)) continue;
      say(`[warn] ${path}:${index + 1}: a comment of ${line.length} columns, ${width} at most`);
      good = false;
    }
  }
  return good;
}

const good = [runPrettier(), runClangFormat(), checkComments()].every(Boolean);
if (!good) {
  if (check) say('Not formatted: run npm run format.');
  process.exit(1);
}
