// Which kernels compute what (csrc/linear/choice.h, csrc/attention/choice.h), asked of the C++ itself.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';

const csrc = fileURLToPath(new URL('../csrc', import.meta.url));
const tables = dirname(createRequire(import.meta.url).resolve('@q/tensor/native/q_ops.h'));
const dir = mkdtempSync(join(tmpdir(), 'q-choice-'));
afterAll(() => rmSync(dir, { recursive: true }));

const cases: readonly (readonly [facts: string, kernel: string, reason: RegExp])[] = [
  ['int8 scalar - - 1', 'scalar', /no vectors/],
  ['int8 avx2 - - 4096', 'avx2', /AVX2/],
  ['int8 avx2 vnni amx 4096', 'avx2', /AVX2/], // asked to use no more
  ['int8 avx512 - - 17', 'avx512', /without VNNI/],
  ['int8 avx512 - amx 17', 'avx512', /without VNNI/],
  ['int8 avx512 vnni - 17', 'vnni', /no AMX/],
  ['int8 avx512 vnni amx 1', 'vnni', /below one tile/],
  ['int8 avx512 vnni amx 16', 'vnni', /below one tile/],
  ['int8 avx512 vnni amx 17', 'amx', /more rows/],
  ['format dense f32 4095 0', 'f32', /dense/],
  ['format dense f16 1 0', 'f16', /dense/],
  ['format dense bf16 64 0', 'bf16', /dense/],
  ['format int8 i8 33 0', 'int8', /int8/],
  ['format bnb4 u8 4096 64', 'nibble', /whole chunks/],
  ['format bnb4 u8 64 4096', 'nibble', /whole chunks/],
  ['format bnb4 u8 4096 32', 'nibble_any', /no power of two/],
  ['format bnb4 u8 4096 192', 'nibble_any', /no power of two/],
  ['format bnb4 u8 4095 64', 'nibble_any', /no whole chunks/],
  ['format bnb4 u8 33 4096', 'nibble_any', /no whole chunks/],
  ['columns 0 4', '256', /registers/],
  ['columns 4 4', '256', /registers/],
  ['columns 5 4', '16', /few rows/],
  ['columns 32 4', '16', /few rows/],
  ['columns 33 4', '128', /many rows/],
  ['attention 1 32', 'split', /one query/],
  ['attention 2 4', 'split', /few rows/],
  ['attention 8 1', 'split', /few rows/],
  ['attention 9 1', 'lanes', /many rows/],
  ['attention 3 4', 'lanes', /many rows/],
];

const answers: (readonly string[])[] = [];
beforeAll(() => {
  const program = join(dir, 'choice');
  const options = ['-std=c++20', '-Wall', '-Wextra', '-Werror', `-I${csrc}`, `-I${tables}`];
  const built = spawnSync(process.env.CXX ?? 'c++', [...options, join(csrc, 'bench/choice.cpp'), '-o', program], {
    encoding: 'utf8',
  });
  expect(built.stderr).toBe('');
  const input = `${cases.map(([facts]) => facts).join('\n')}\n`;
  const { stdout, stderr, status } = spawnSync(program, { input, encoding: 'utf8' });
  expect(stderr).toBe('');
  expect(status).toBe(0);
  answers.push(...stdout.split('\n').map((line) => line.split('\t')));
}, 120_000);

it.each(cases.map((one, i) => [...one, i] as const))('%s: %s', (_, kernel, reason, i) => {
  expect(answers[i][0]).toBe(kernel);
  expect(answers[i][1]).toMatch(reason);
});
