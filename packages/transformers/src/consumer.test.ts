// The packages as a project that uses them sees them: built, with declarations that compile under the strictest
// settings and every resolution of TypeScript.
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterAll, beforeAll, expect, it } from 'vitest';

const repository = fileURLToPath(new URL('../../..', import.meta.url));

let folder: string;
let names: string[];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'q-consumer-'));
  await mkdir(join(folder, 'node_modules/@q'), { recursive: true });
  await mkdir(join(folder, 'node_modules/@types'), { recursive: true });
  await symlink(join(repository, 'node_modules/@types/node'), join(folder, 'node_modules/@types/node'));
  names = (await readdir(join(repository, 'packages'))).filter((name) => name !== 'node_modules');
  for (const name of names) await symlink(join(repository, 'packages', name), join(folder, 'node_modules/@q', name));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** What a program does with the umbrella package. */
const program = `
export async function scoped(): Promise<readonly string[]> {
  await using model = await q.AutoModelForCausalLM.fromPretrained('@q/nano', { loadIn8bit: true });
  using output = model.forward({ inputIds: [[1, 2]] });
  return [...model.warnings, String(output.logits.shape)];
}
export async function main(signal: AbortSignal): Promise<string> {
  const quantizationConfig = new q.BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'nf4' });
  const model: q.CausalModel = await q.AutoModelForCausalLM.fromPretrained('@q/nano', { quantizationConfig, signal });
  try {
    let text: string = '';
    for await (const step of model.generate({ prompt: 'x', maxNewTokens: 2 })) text += step.text;
    const { stats } = await model.generate({ prompt: 'x', doSample: true, temperature: 0.5 });
    const tokenizer: q.Tokenizer = await q.AutoTokenizer.fromPretrained('@q/nano');
    const ids: readonly number[] = tokenizer.encode(text);
    const { logits }: { logits: q.Tensor } = model.forward({ inputIds: [[...ids]] });
    logits[Symbol.dispose]();
    // @ts-expect-error options have types
    await model.generate({ prompt: 'x', maxNewTokens: 'two' });
    // @ts-expect-error a private member
    void tokenizer.fromParts;
    return text + stats.newTokens + String(model.warnings.length);
  } catch (error) {
    if (error instanceof q.QError) return error.code satisfies q.QErrorCode;
    throw error;
  } finally {
    await model.dispose();
  }
}
`;

const { ModuleKind, ModuleResolutionKind } = ts;
const settings = [
  ['node16', 'mts', { module: ModuleKind.Node16, moduleResolution: ModuleResolutionKind.Node16 }],
  ['node16', 'cts', { module: ModuleKind.Node16, moduleResolution: ModuleResolutionKind.Node16 }],
  ['nodenext', 'mts', { module: ModuleKind.NodeNext, moduleResolution: ModuleResolutionKind.NodeNext }],
  ['nodenext', 'cts', { module: ModuleKind.NodeNext, moduleResolution: ModuleResolutionKind.NodeNext }],
  ['bundler', 'ts', { module: ModuleKind.ESNext, moduleResolution: ModuleResolutionKind.Bundler }],
] as const;

const strict: ts.CompilerOptions = {
  strict: true,
  skipLibCheck: false,
  noEmit: true,
  target: ts.ScriptTarget.ES2022,
  lib: ['lib.es2022.d.ts'],
  types: ['node'],
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  noPropertyAccessFromIndexSignature: true,
  noImplicitOverride: true,
};

// Parsed once for all settings that parse a file the same way.
const parsed = new Map<string, ts.SourceFile | undefined>();
function compile(files: readonly string[], options: ts.CompilerOptions): string[] {
  const host = ts.createCompilerHost(options);
  const read = host.getSourceFile.bind(host);
  host.getSourceFile = (path, version, ...rest) => {
    const format = typeof version === 'object' ? String(version.impliedNodeFormat) : '';
    const key = `${path} ${format}`;
    if (!parsed.has(key)) parsed.set(key, read(path, version, ...rest));
    return parsed.get(key);
  };
  host.getCurrentDirectory = () => folder;
  return ts
    .getPreEmitDiagnostics(ts.createProgram(files, options, host))
    .map((diagnostic) => ts.formatDiagnostic(diagnostic, host).trim());
}

it.each(settings)(
  '%s, .%s',
  async (resolution, extension, options) => {
    const commonJs = extension === 'cts';
    const imported = (name: string, from: string) =>
      commonJs ? `import ${name} = require('${from}');` : `import * as ${name} from '${from}';`;
    const every = [...names.map((name) => `@q/${name}`), '@q/tensor/conformance']
      .map((from, index) => `${imported(`p${index}`, from)}\nexport type T${index} = keyof typeof p${index};\n`)
      .join('');
    const files = {
      [`main.${extension}`]: `${imported('q', '@q/transformers')}\n${program}`,
      [`all.${extension}`]: every,
    };
    const paths = Object.keys(files).map((name) => join(folder, `${resolution}-${name}`));
    for (const [index, text] of Object.values(files).entries()) await writeFile(paths[index], text);
    expect(compile(paths, { ...strict, ...options })).toEqual([]);
  },
  240_000,
);

it('public declarations name only packages that have good ones', async () => {
  const known = /^(\.{1,2}\/|node:|@q\/|zod$)/;
  const foreign = new Set<string>();
  for (const name of names) {
    const dist = join(repository, 'packages', name, 'dist');
    for (const file of (await readdir(dist, { recursive: true })).filter((path) => /\.d\.c?ts$/.test(path)))
      for (const [, from] of (await readFile(join(dist, file), 'utf8')).matchAll(/(?:from|import\()\s*'([^']+)'/g))
        if (!known.test(from)) foreign.add(`${dirname(join(name, file))}: ${from}`);
  }
  expect([...foreign]).toEqual([]);
});
