// Counts for bench/results/structure.md: files, functions, architectures, and files that know a weight format, in the
// sources of packages without tests. Prints Markdown.
//   node scripts/structure.mjs [ROOT]     the root of another checkout; default: of this one
//   node scripts/structure.mjs --write    puts the counts into the last column of structure.md, and its table of
//                                         architectures
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ESLint } from 'eslint';
import ts from 'typescript';
import tseslint from 'typescript-eslint';
import { weightFormats } from '../tooling/weight-formats.js';

const [argument] = process.argv.slice(2);
const writes = argument === '--write';
const root = (!writes && argument) || fileURLToPath(new URL('..', import.meta.url));

/** Sources under `<kind>/<package>/src`. */
function sourcesOf(kind) {
  const isSource = (name) => /\.ts$/.test(name) && !/\.(test|d)\.ts$/.test(name);
  return readdirSync(join(root, kind)).flatMap((name) => {
    const folder = join(root, kind, name, 'src');
    try {
      return readdirSync(folder, { recursive: true })
        .filter(isSource)
        .map((file) => join(folder, file));
    } catch {
      return []; // no package of TypeScript
    }
  });
}

const linesOf = (text) => text.split('\n').length - 1;

/** Lines of each function, first to last, and whether it has a block for a body. */
function functionsOf(file, text) {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
  const lineAt = (position) => source.getLineAndCharacterOfPosition(position).line;
  const found = [];
  const visit = (node) => {
    if (ts.isFunctionLike(node) && node.body)
      found.push({ lines: lineAt(node.end) - lineAt(node.getStart()) + 1, block: ts.isBlock(node.body) });
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

const quantile = (values, share) => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
};
const quantiles = (values, shares) => [...shares.map((share) => quantile(values, share)), Math.max(...values)];
const grouped = (value) => value.toLocaleString('en-US');
const rows = new Map();
const row = (name, value) => rows.set(name, String(value));

/** Files that the rule about weight formats finds, as if it had no exceptions. */
async function filesThatKnowFormats(files) {
  const [{ rules }] = weightFormats;
  const eslint = new ESLint({
    cwd: root,
    overrideConfigFile: true,
    allowInlineConfig: false,
    overrideConfig: [{ files: ['**/*.ts'], languageOptions: { parser: tseslint.parser }, rules }],
  });
  const results = await eslint.lintFiles(files);
  return results.filter(({ messages }) => messages.length > 0).map(({ filePath }) => relative(root, filePath));
}

/** The state before architectures were files of their own. */
const first = 'a60328d';
const compared = '`git diff --numstat` of `*.ts *.cpp *.h *.cu *.cuh` without `*.test.ts`';

/** Lines of code added and deleted since then; empty where the history is not there. */
function linesChanged() {
  const globs = ['*.ts', '*.cpp', '*.h', '*.cu', '*.cuh', ':(exclude)*.test.ts'];
  try {
    const args = ['-C', root, 'diff', '--numstat', first, '--', ...globs];
    const changes = execFileSync('git', args, { encoding: 'utf8', stdio: 'pipe' }).trim().split('\n');
    const sum = (column) => changes.reduce((total, line) => total + Number(line.split('\t')[column]), 0);
    return `${grouped(sum(0))} and ${grouped(sum(1))}`;
  } catch {
    return '';
  }
}

const files = sourcesOf('packages');
const texts = new Map(files.map((file) => [file, readFileSync(file, 'utf8')]));
const lines = [...texts.values()].map(linesOf);
const functions = files.flatMap((file) => functionsOf(file, texts.get(file)));
const blocks = functions.filter(({ block }) => block).map((each) => each.lines);
const all = functions.map((each) => each.lines);

// An architecture's file is what calls architecture() or a family's, and what the registry imports.
const registry = texts.get(join(root, 'packages/models/src/registry.ts'));
const table = /const architectures = \{(.*?)\n\};/s.exec(registry)[1];
const names = [...table.matchAll(/^ {2}'?([\w-]+)'?(?:,|:)/gm)].map(([, name]) => name);
const own = names.map((name) => [name, texts.get(join(root, `packages/models/src/${name}.ts`))]);
row('model types', names.length);
row('files', grouped(files.length));
row('lines', grouped(lines.reduce((a, b) => a + b, 0)));
row(`lines added and deleted since ${first} (${compared})`, linesChanged());
row('file, lines: median, p90, longest', quantiles(lines, [0.5, 0.9]).join(', '));
row('function, lines: median, p90, p99, longest', quantiles(blocks, [0.5, 0.9, 0.99]).join(', '));
row(
  'functions with arrows that are one expression: number, median, p90',
  [grouped(all.length), quantile(all, 0.5), quantile(all, 0.9)].join(', '),
);

const isTool = (file) => /\/(conformance|testing)\//.test(file) || /^testing\.ts$/.test(basename(file));
const judged = [...files, ...sourcesOf('apps')].filter((file) => !isTool(file));
const knowing = await filesThatKnowFormats(judged);
const mayKnow =
  /\/formats\/|config\/src\/(bitsandbytes|gptq|quantization)\.ts|tensor\/src\/(driver\/schema\.ts|reference\/)/;
const others = knowing.filter((file) => !mayKnow.test(file)).map((file) => `: \`${file}\``);
row('files that ask for a weight format, by the rule of `tooling/weight-formats.js` (apps included)', knowing.length);
row(
  'of them outside formats, the configs of the methods and the tables of commands',
  others.length + (others.length === 1 ? others[0] : ''),
);

const ownLines = own.map(([, text]) => linesOf(text));
row('files of architectures, lines: median, p90, longest', quantiles(ownLines, [0.5, 0.9]).join(', '));
const ownFunctions = own.flatMap(([name, text]) => functionsOf(name, text)).filter(({ block }) => block);
const ownFunctionLines = ownFunctions.map((each) => each.lines);
row('their functions, lines: median, p90, longest', quantiles(ownFunctionLines, [0.5, 0.9]).join(', '));
for (const folder of ['shared', 'nn']) {
  const parts = files.filter((file) => file.startsWith(join(root, `packages/models/src/${folder}/`)));
  const counts = parts.map((file) => linesOf(texts.get(file)));
  const sum = counts.reduce((a, b) => a + b, 0);
  row(`\`models/src/${folder}\`: files, lines, longest`, [parts.length, grouped(sum), Math.max(...counts)].join(', '));
}
row("`as never` outside tests' tools", judged.filter((file) => /\bas never\b/.test(readFileSync(file, 'utf8'))).length);

/** Lines of architectures, downwards in four columns. */
function architectureTable() {
  const height = Math.ceil(own.length / 4);
  const cellsOf = (index) => (index < own.length ? [own[index][0], linesOf(own[index][1])] : ['', '']);
  const line = (at) => [0, 1, 2, 3].flatMap((column) => cellsOf(at + column * height)).join(' | ');
  const head = ['architecture | lines', '--- | ---'].map((cells) => `| ${Array(4).fill(cells).join(' | ')} |`);
  return [...head, ...Array.from({ length: height }, (_, at) => `| ${line(at)} |`)].join('\n');
}

/** structure.md with the counts of now. @throws Error where a row is missing */
function updated(text) {
  const counted = [...rows].reduce((before, [name, value]) => {
    const start = before.indexOf(`| ${name} |`);
    if (start < 0) throw new Error(`structure.md has no row "${name}"`);
    const end = before.indexOf('\n', start);
    const cells = before.slice(start, end).split(' | ').slice(0, -1);
    return `${before.slice(0, start)}${[...cells, value].join(' | ')} |${before.slice(end)}`;
  }, text);
  return counted.replace(/\| architecture \|[^]*?(?=\n\n)/, architectureTable());
}

if (writes) {
  const page = join(root, 'bench/results/structure.md');
  writeFileSync(page, updated(readFileSync(page, 'utf8')));
} else {
  for (const [name, value] of rows) console.log(`| ${name} | ${value} |`);
  console.log(`\n${architectureTable()}`);
}
