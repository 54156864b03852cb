// Counts for bench/results/structure.md: files, functions, architectures, and files that know a weight format, in the
// sources of packages without tests. Prints Markdown.
// node scripts/structure.mjs [ROOT]: the root of another checkout; default: of this one.
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ESLint } from 'eslint';
import ts from 'typescript';
import tseslint from 'typescript-eslint';
import { weightFormats } from '../tooling/weight-formats.js';

const root = process.argv[2] ?? fileURLToPath(new URL('..', import.meta.url));

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
const row = (...cells) => console.log(`| ${cells.join(' | ')} |`);

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

const files = sourcesOf('packages');
const texts = new Map(files.map((file) => [file, readFileSync(file, 'utf8')]));
const lines = [...texts.values()].map(linesOf);
const functions = files.flatMap((file) => functionsOf(file, texts.get(file)));
const blocks = functions.filter(({ block }) => block).map((each) => each.lines);
const all = functions.map((each) => each.lines);

row('files', grouped(files.length));
row('lines', grouped(lines.reduce((a, b) => a + b, 0)));
row('file, lines: median, p90, longest', quantiles(lines, [0.5, 0.9]).join(', '));
row('function, lines: median, p90, p99, longest', quantiles(blocks, [0.5, 0.9, 0.99]).join(', '));
row(
  'functions with arrows that are one expression: number, median, p90',
  [grouped(all.length), quantile(all, 0.5), quantile(all, 0.9)].join(', '),
);

// An architecture's file is what calls architecture() or a family's, and what the registry imports.
const registry = texts.get(join(root, 'packages/models/src/registry.ts'));
const table = /const architectures = \{(.*?)\n\};/s.exec(registry)[1];
const names = [...table.matchAll(/^ {2}'?([\w-]+)'?(?:,|:)/gm)].map(([, name]) => name);
const own = names.map((name) => [name, texts.get(join(root, `packages/models/src/${name}.ts`))]);
const ownLines = own.map(([, text]) => linesOf(text));
row('model types', names.length);
row('files of architectures, lines: median, p90, longest', quantiles(ownLines, [0.5, 0.9]).join(', '));
const ownFunctions = own.flatMap(([name, text]) => functionsOf(name, text)).filter(({ block }) => block);
const ownFunctionLines = ownFunctions.map((each) => each.lines);
row('their functions, lines: median, p90, longest', quantiles(ownFunctionLines, [0.5, 0.9]).join(', '));
for (const folder of ['shared', 'nn']) {
  const parts = files.filter((file) => file.startsWith(join(root, `packages/models/src/${folder}/`)));
  const counts = parts.map((file) => linesOf(texts.get(file)));
  row(
    `models/src/${folder}: files, lines, longest`,
    [parts.length, grouped(counts.reduce((a, b) => a + b, 0)), Math.max(...counts)].join(', '),
  );
}

const isTool = (file) => /\/(conformance|testing)\//.test(file) || /^testing\.ts$/.test(basename(file));
const judged = [...files, ...sourcesOf('apps')].filter((file) => !isTool(file));
const knowing = await filesThatKnowFormats(judged);
row('files that compare with a weight format', `${knowing.length}: ${knowing.map((file) => `\`${file}\``).join(', ')}`);

console.log(`\n${own.map(([name, text]) => `${name} ${linesOf(text)}`).join(', ')}`);
