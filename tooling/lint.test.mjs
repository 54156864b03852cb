// The repository's own lint rules find what they are for: run with node --test.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ESLint } from 'eslint';

const root = fileURLToPath(new URL('..', import.meta.url));
const eslint = new ESLint({ cwd: root });

/** Messages about lines of a file that is not there. */
async function messages(file, lines) {
  const [{ messages: found }] = await eslint.lintText(`${lines.join('\n')}\n`, { filePath: `${root}${file}` });
  return found.filter(({ ruleId }) => ruleId.startsWith('no-restricted-'));
}

const declared = [
  'declare class BitsAndBytesConfig {}',
  'declare const weight: { kind: string; label: string };',
  'declare const config: { loadIn4bit: boolean; quantMethod: string };',
];

/** Ways to ask which format a weight or a config has. */
const violations = [
  `export const a = weight.kind === 'bnb4';`,
  `export const a = 'int8' !== weight.kind;`,
  'export const a = weight.kind === `int8`;',
  `export function a(): number { switch (weight.kind) { case 'dense': return 1; default: return 0; } }`,
  `export const a = ['nf4', 'fp4'].includes(weight.label);`,
  `export const a = new Set(['nf4']).has(weight.label);`,
  `export const a = weight.label.startsWith('nf4');`,
  `export const a = /^nf4/.test(weight.label);`,
  `export const a = config.quantMethod === 'gptq';`,
  `export const a = { bnb4: 1, gptq: 2 }[weight.kind as 'bnb4'];`,
  `export const a = { 'bnb-4bit': 1 }[weight.label as 'bnb-4bit'];`,
  `export const a = (config as unknown) instanceof BitsAndBytesConfig;`,
  `export const a = config.loadIn4bit ? 1 : 2;`,
  `export function a(): number { if (weight && config.loadIn4bit) return 1; return 0; }`,
  `export const a = weight && config.loadIn4bit;`,
  `export const a = !config.loadIn4bit;`,
  `export const a = config.loadIn4bit === true;`,
];

/** Files that must not know formats, whether they exist or not. */
const ignorant = [
  'packages/generate/src/x.ts',
  'packages/models/src/x.ts',
  'packages/loader/src/weights/x.ts',
  'apps/cli/src/x.ts',
];

test('nobody outside the formats asks for one', async () => {
  for (const violation of violations)
    for (const file of ignorant) {
      const found = await messages(file, [...declared, violation]);
      assert.equal(found.at(-1)?.line, declared.length + 1, `${file}: ${violation}`);
      assert.match(found.at(-1).message, /ask the format object instead/);
    }
});

test('formats know themselves, and commands are computed by kind', async () => {
  const [comparison, table] = [violations[0], violations[9]];
  for (const file of ['packages/tensor/src/formats/bnb4/x.ts', 'packages/loader/src/formats/int8/x.ts'])
    assert.deepEqual(await messages(file, [...declared, comparison, table.replace('const a', 'const b')]), []);
  assert.deepEqual(await messages('packages/tensor/src/reference/x.ts', [...declared, table]), []);
  assert.equal((await messages('packages/tensor/src/reference/x.ts', [...declared, comparison])).length, 1);
});

test('names of dtypes and of modules are no formats', async () => {
  const lines = [`export const a = { int8: 1, dense: 2 };`, `export const b = [weight.kind, 'int8', 'dense'];`];
  assert.deepEqual(await messages('packages/models/src/x.ts', [...declared, ...lines]), []);
});

test('packages import only what is below them', async () => {
  const found = async (file, name) => (await messages(file, [`export { x } from '${name}';`])).length;
  assert.equal(await found('packages/models/src/x.ts', '@q/tensor'), 0);
  assert.equal(await found('packages/models/src/x.ts', '@q/generate'), 1);
  assert.equal(await found('packages/generate/src/x.ts', '@q/kernels-cpu'), 1);
  assert.equal(await found('packages/transformers/src/x.ts', '@q/kernels-cpu'), 0);
  assert.equal(await found('apps/cli/src/x.ts', '@q/loader'), 1);
});
