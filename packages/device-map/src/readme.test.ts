import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterAll, describe, expect, it } from 'vitest';
import * as deviceMap from './index.js';

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
const snippets = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code!);

/** `expression; // => value` becomes a check. */
const withChecks = (code: string): string => code.replace(/^(.+); \/\/ => (.+)$/gm, 'check($1, $2);');

/** Diagnostics of a snippet against the package's own types. */
const typeErrors = (codes: readonly string[]): string[] => {
  const here = fileURLToPath(new URL('.', import.meta.url));
  const files = new Map(codes.map((code, index) => [`${here}snippet${index}.ts`, `${code}\nexport {};`]));
  const options: ts.CompilerOptions = {
    target: ts.ScriptTarget.ES2022,
    lib: ['lib.es2023.d.ts', 'lib.dom.d.ts'],
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    types: [],
    baseUrl: here,
    paths: { '@q/device-map': ['./index.ts'], '@q/config': ['../../config/src/index.ts'] },
  };
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile } = host;
  host.fileExists = (path) => files.has(path) || fileExists(path);
  host.readFile = (path) => files.get(path) ?? readFile(path);
  host.getSourceFile = (path, version, ...rest) => {
    const code = files.get(path);
    return code === undefined ? getSourceFile(path, version, ...rest) : ts.createSourceFile(path, code, version);
  };
  const program = ts.createProgram([...files.keys()], options, host);
  return ts
    .getPreEmitDiagnostics(program)
    .filter(({ file }) => file !== undefined && files.has(file.fileName))
    .map(
      ({ file, messageText }) =>
        `${file!.fileName.slice(here.length)}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`,
    );
};

describe('README', () => {
  let ran = 0;
  let checked = 0;

  it('has snippets', () => expect(snippets.length).toBeGreaterThanOrEqual(7));

  it('has snippets of the right types', () => expect(typeErrors(snippets)).toEqual([]), 120_000);

  it.each(snippets.map((code, index) => [index, code] as const))('snippet %d does what it says', (_, code) => {
    const { outputText } = ts.transpileModule(withChecks(code), {
      compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 },
    });
    const load = (name: string): unknown => {
      expect(name).toBe('@q/device-map');
      return deviceMap;
    };
    const check = (actual: unknown, expected: unknown): void => {
      expect(actual).toEqual(expected);
      checked++;
    };
    const printed: string[] = [];
    new Function('require', 'exports', 'check', 'console', outputText)(load, {}, check, {
      log: (text: string) => printed.push(text),
    });
    ran++;
  });

  afterAll(() => {
    console.log(`${ran} README snippets ran, ${checked} results compared`);
    expect(checked).toBeGreaterThan(20);
  });
});
