// Which kernel computes what (csrc/<family>/choice.h), asked of the C++ itself: compiled without CUDA, run without a
// GPU.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const csrc = fileURLToPath(new URL('../csrc', import.meta.url));
const tables = dirname(createRequire(import.meta.url).resolve('@q/tensor/native/q_ops.h'));
const dir = mkdtempSync(join(tmpdir(), 'q-choice-'));
afterAll(() => rmSync(dir, { recursive: true }));

/** Compiles sources of csrc into a program, with the compiler that the native packages ask for. */
function compile(name: string, sources: readonly string[]): string {
  const program = join(dir, name);
  const includes = [csrc, join(csrc, 'common'), tables].map((path) => `-I${path}`);
  const paths = sources.map((source) => join(csrc, source));
  const { status, stderr, error } = spawnSync(
    process.env.CXX ?? 'c++',
    ['-std=c++17', '-Wall', '-Wextra', '-Werror', ...includes, ...paths, '-o', program],
    { encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(`${name} does not compile: ${error?.message ?? stderr}`);
  return program;
}

/** The facts of a case as csrc/test/choice.cpp reads them, the kernel, part of the reason, further fields. */
type Case = readonly [facts: string, kernel: string, reason: RegExp, fields?: RegExp];

const dense = 'dense:n=4096';
const nf4 = 'bnb4:n=4096';
const nested = 'bnb4:n=4096,nested=256';
const int8 = 'int8:n=4096,threshold=6';

const fewRows: readonly Case[] = [
  [`rows=0 ${nf4}`, 'none', /no rows/],
  ['rows=4 dense:n=0', 'none', /no outputs/],
  // dense
  [`rows=1 ${dense}`, 'stream', /dense/],
  [`rows=16 ${dense}`, 'stream', /dense/],
  [`rows=1 act=bf16 ${dense}`, 'stream', /dense/],
  [`rows=1 k=4032 ${dense}`, 'stream', /dense/],
  [`rows=1 capability=80 ${dense}`, 'stream', /dense/],
  [`rows=16 capability=89 ${dense} ${dense} ${dense}`, 'stream', /dense/],
  // f32, and x of 16 bits
  [`rows=1 k=65536 dense:n=1024,weight=f32`, 'stream', /f32 weights, whose products are exact/],
  [`rows=8 k=5120 act=bf16 dense:n=2048,weight=f32`, 'stream', /f32 weights/],
  [`rows=16 capability=89 dense:n=4096,weight=f32`, 'stream', /f32 weights/],
  // 4 bits
  [`rows=1 ${nf4}`, 'row4', /one row/, /blocks=264 groups=264 tiles=1/],
  [`rows=1 ${nested}`, 'row4', /one row/],
  [`rows=1 bnb4:n=4096,fp4=1`, 'row4', /one row/],
  [`rows=1 ${nf4} bnb4:n=1024 bnb4:n=1024`, 'row4', /one row/],
  [`rows=1 gated=1 activation=1 bnb4:n=11008 bnb4:n=11008`, 'row4', /one row/],
  [`rows=1 capability=89 ${nf4}`, 'row4', /one row/, /blocks=132/],
  [`rows=1 bnb4:n=4096,compute=f32`, 'row4', /one row/],
  [`rows=2 ${nf4}`, 'batch4', /up to 16 rows/, /columns=1/],
  [`rows=8 ${nested}`, 'batch4', /up to 16 rows/, /columns=1/],
  [`rows=9 ${nf4}`, 'batch4', /up to 16 rows/, /columns=2 blocks=132/],
  [`rows=16 ${nf4}`, 'batch4', /up to 16 rows/, /columns=2/],
  [`rows=17 ${nf4}`, 'stream', /over 16 rows/],
  [`rows=32 ${nested}`, 'stream', /over 16 rows/],
  [`rows=1 k=448 ${nf4}`, 'stream', /does not take/], // less than 512 values
  [`rows=1 k=4160 ${nf4}`, 'stream', /does not take/], // no multiple of 128
  [`rows=1 bnb4:n=4096,block=128`, 'stream', /does not take/],
  [`rows=1 bnb4:n=4096,block=4096`, 'stream', /does not take/],
  [`rows=1 bnb4:n=4096,absmaxAligned=0`, 'stream', /does not take/],
  [`rows=1 ${nf4} ${nested}`, 'stream', /does not take/],
  [`rows=2 ${nf4} bnb4:n=0`, 'stream', /does not take/],
  // 4 bits on a device whose blocks have 99 KiB
  [`rows=16 capability=89 ${nf4}`, 'slices4', /find shared memory/],
  [`rows=17 capability=89 ${nf4}`, 'slices4', /find shared memory/],
  [`rows=32 capability=86 ${nested}`, 'slices4', /find shared memory/],
  [`rows=8 capability=89 ${nf4}`, 'batch4', /up to 16 rows/],
  [`rows=17 capability=89 k=4160 ${nf4}`, 'simple', /every shape/, /passed=too little shared memory/],
  [`rows=1 capability=89 bnb4:n=4096,block=128`, 'simple', /every shape/, /passed=too little shared memory/],
  // int8
  [`rows=1 ${int8}`, 'row8', /quantized by each block/, /stages=8 own columns=1/],
  [`rows=1 int8:n=4096`, 'row8', /quantized by each block/],
  [`rows=1 k=40960 ${int8}`, 'row8', /quantized by each block/, /stages=4 own/],
  [`rows=1 k=65536 ${int8}`, 'row8', /up to 16 rows/, /shared columns=1/],
  [`rows=2 ${int8}`, 'row8', /up to 16 rows/, /shared columns=1/],
  [`rows=16 ${int8}`, 'row8', /up to 16 rows/, /stages=8 shared columns=2/],
  [`rows=16 capability=89 ${int8}`, 'row8', /up to 16 rows/, /stages=4 shared columns=2/],
  [`rows=4 k=192 ${int8}`, 'stream', /row8 does not take/],
  [`rows=4 counters=0 ${int8}`, 'stream', /row8 does not take/],
  [`rows=4 ${int8} int8:n=0,threshold=6`, 'stream', /row8 does not take/],
];

const more = /passed=more rows/;
const manyRows: readonly Case[] = [
  [`rows=17 ${dense}`, 'cublas', /dense/, more],
  [`rows=4096 ${dense}`, 'cublas', /dense/, /otherwise=mma/],
  [`rows=17 cublas=0 ${dense}`, 'tma', /cuBLASLt is not there/, more],
  [`rows=17 dense:n=4096,bias=f16`, 'cublas', /dense/],
  [`rows=17 dense:n=4096,bias=f32`, 'tma', /biases/],
  [`rows=17 capability=80 dense:n=4096,bias=f32`, 'mma', /no cuBLASLt for it/],
  [`rows=17 capability=80 ${dense}`, 'cublas', /dense/],
  [`rows=17 capability=80 cublas=0 ${dense}`, 'mma', /no cuBLASLt/],
  [`rows=17 wgmma=0 cublas=0 ${dense}`, 'mma', /no tensor maps/], // a build without sm_90a
  [`rows=256 gated=1 activation=1 ${dense} ${dense}`, 'cublas', /dense/],
  [`rows=257 gated=1 activation=1 ${dense} ${dense}`, 'tma', /gate/],
  [`rows=257 activation=4 ${dense}`, 'tma', /activation/],
  [`rows=257 activation=2 ${dense}`, 'cublas', /dense/], // gelu is a pass of its own anyway
  [`rows=257 gated=1 activation=2 ${dense} ${dense}`, 'cublas', /dense/],
  [`rows=257 gated=1 activation=1 capability=80 ${dense} ${dense}`, 'cublas', /dense/],
  [`rows=257 gated=1 activation=1 aligned=0 ${dense} ${dense}`, 'cublas', /dense/],
  [`rows=17 cublas=0 k=4092 ${dense}`, 'mma', /no tensor maps/],
  // 4 bits
  [`rows=33 ${nf4}`, 'bnb4', /up to 256 rows/, more],
  [`rows=256 ${nested}`, 'bnb4', /up to 256 rows/],
  [`rows=257 ${nf4}`, 'cublas', /dense/, /dequantized/],
  [`rows=4096 gated=1 activation=1 ${nf4} ${nf4}`, 'tma', /gate/, /dequantized/],
  [`rows=33 bnb4:n=4096,block=4096`, 'bnb4', /up to 256 rows/],
  [`rows=33 bnb4:n=4096,block=32`, 'cublas', /dense/, /blocks under 64.*dequantized/],
  [`rows=33 k=4160 bnb4:n=4096,block=128`, 'cublas', /dense/, /dequantized/], // k no multiple of blockSize
  [`rows=33 k=4160 ${nf4}`, 'bnb4', /up to 256 rows/],
  [`rows=33 bnb4:n=4096,compute=f32`, 'cublas', /dense/, /dequantized converted otherwise=plain/],
  [`rows=33 act=f32 bnb4:n=4096,compute=f16`, 'bnb4', /up to 256 rows/, /32 bits converted/],
  [`rows=33 aligned=0 act=f32 bnb4:n=4096,compute=bf16`, 'bnb4', /up to 256 rows/, /converted/], // x is copied
  [`rows=33 aligned=0 ${nf4}`, 'cublas', /dense/, /dequantized/],
  [`rows=33 bnb4:n=4096,aligned=0 cublas=0`, 'tma', /not there/, /dequantized/],
  [`rows=33 capability=89 ${nf4}`, 'cublas', /dense/, /dequantized/],
  // int8
  [`rows=17 ${int8}`, 'tma', /int8/, more],
  [`rows=4096 k=4104 ${int8}`, 'mma', /int8/],
  [`rows=17 capability=80 ${int8}`, 'mma', /int8/],
  [`rows=17 aligned=0 ${int8}`, 'tma', /int8/], // x is quantized first
  [`rows=17 int8:n=4096,aligned=0`, 'mma', /int8/],
  [`rows=17 act=f32 ${int8}`, 'mma', /int8/],
];

const odd: readonly Case[] = [
  [`rows=1 k=4095 ${dense}`, 'cublas', /dense/, /passed=k is not a multiple of 64/],
  [`rows=1 k=100 cublas=0 ${dense}`, 'mma', /no tensor maps/, /passed=k/],
  [`rows=1 k=100 ${nf4}`, 'cublas', /dense/, /passed=k.*dequantized/],
  [`rows=1 k=72 ${int8}`, 'mma', /int8/, /passed=k/],
  [`rows=1 aligned=0 ${dense}`, 'cublas', /dense/, /passed=x is not aligned/],
  [`rows=1 dense:n=4096,aligned=0`, 'cublas', /dense/, /passed=a weight is not aligned/],
  [`rows=1 act=f32 ${dense}`, 'cublas', /dense/, /passed=activations of 32 bits otherwise=plain/],
  [`rows=1 act=f32 cublas=0 ${dense}`, 'plain', /no tensor cores/],
  [`rows=1 act=bf16 dense:n=4096,weight=f16`, 'cublas', /rounded/, /passed=weights in another 16-bit.*rounded/],
  [`rows=1 act=f16 dense:n=4096,weight=bf16`, 'cublas', /rounded/, /passed=weights in another 16-bit.*rounded/],
  [`rows=1 act=f32 dense:n=4096,weight=f16`, 'plain', /f32 activations/],
  [`rows=17 act=bf16 dense:n=4096,weight=f32`, 'cublas', /rounded/, /passed=more rows.*rounded otherwise=mma/],
  [`rows=512 gated=1 activation=1 dense:n=64,weight=f32 dense:n=64,weight=f32`, 'tma', /rounded/, /rounded/],
  [`rows=512 cublas=0 dense:n=4096,weight=f32,aligned=0`, 'tma', /rounded/, /rounded/],
  [`rows=512 capability=80 cublas=0 dense:n=4096,weight=f32`, 'mma', /rounded/, /rounded/],
  [`rows=1 k=1000 dense:n=4096,weight=f32`, 'cublas', /rounded/, /passed=k is not.*rounded/],
  [`rows=512 act=bf16 capability=75 cublas=0 dense:n=4096,weight=f32`, 'plain', /no tensor cores/],
  [`rows=1 capability=75 ${dense}`, 'cublas', /dense/, /passed=compute capability below 8.0 otherwise=mma/],
  [`rows=1 capability=75 act=bf16 cublas=0 ${dense}`, 'plain', /no tensor cores/],
  [`rows=1 capability=75 ${nf4}`, 'cublas', /dense/, /dequantized/],
  [`rows=1 capability=75 ${int8}`, 'mma', /int8/],
  [`rows=1 ${nf4} ${int8}`, 'many_parts', /no product takes together/, /passed=parts that differ/],
  [`rows=1 ${nf4} bnb4:n=4096,fp4=1`, 'many_parts', /no product takes together/],
  [`rows=1 ${int8} int8:n=4096,threshold=3`, 'many_parts', /no product takes together/],
  [`rows=1 ${dense} dense:n=64,weight=f32`, 'many_parts', /no product takes together/, /differ in kind, dtype/],
  [`rows=33 ${nf4} ${nested}`, 'many_parts', /no product takes together/, more],
  [`rows=1 ${dense} ${nf4} bnb4:n=2000000000`, 'parts', /more outputs/],
  [`rows=1 bnb4:n=2000000000`, 'stream', /does not take/],
];

const others: Readonly<Record<string, readonly Case[]>> = {
  'a norm and the product that reads it': [
    [`joined k=4096 ${nf4}`, 'row4', /one row/],
    [`joined k=512 ${nf4} ${nf4}`, 'row4', /one row/],
    [`joined k=5120 ${nf4}`, 'none', /some widths/],
    [`joined k=8192 ${nf4}`, 'none', /some widths/],
    [`joined k=4096 bnb4:n=2000000`, 'none', /some widths/], // a block would need x again
    [`joined rows=2 ${nf4}`, 'none', /some widths/],
    [`joined ${dense}`, 'none', /some widths/],
    [`joined rows=1 k=5120 ${int8}`, 'row8', /quantized by each block/],
    [`joined rows=16 k=8192 ${int8}`, 'row8', /up to 16 rows/],
    [`joined rows=16 k=8256 ${int8}`, 'none', /some widths/],
    [`joined rows=17 ${int8}`, 'none', /many rows/],
    [`joined overlaps=1 ${nf4}`, 'none', /norm's input/],
    [`joined sameDtype=0 ${nf4}`, 'none', /dtypes/],
    [`joined normAligned=0 ${int8}`, 'none', /alignment/],
    [`joined width=2048 ${nf4}`, 'none', /another shape/],
    [`joined act=f32 ${nf4}`, 'none', /32 bits/],
  ],
  'one part, whatever the rows': [
    [`few rows=40 ${dense}`, 'stream', /dense/],
    [`few rows=40 dense:n=4096,weight=f32`, 'stream', /f32 weights/],
    [`few rows=40 act=f32 ${dense}`, 'simple', /every shape/, /passed=activations of 32 bits/],
  ],
  'a product asked for': [
    [`many rows=4 want=tma ${dense}`, 'tma', /asked for/],
    [`many rows=4 want=tma dense:n=4096,weight=f32`, 'tma', /asked for/, /rounded/],
    [`many rows=4 want=plain dense:n=4096,weight=f32`, 'plain', /asked for/],
    [`many rows=4 want=tma capability=80 ${dense}`, 'none', /asked for/],
    [`many rows=4 want=bnb4 ${dense}`, 'none', /asked for/],
    [`many rows=4000 want=bnb4 ${nf4}`, 'bnb4', /up to 256/],
    [`many rows=4 want=cublas ${nf4}`, 'cublas', /asked for/, /dequantized otherwise=mma/],
    [`many rows=4 want=mma act=f32 ${dense}`, 'plain', /asked for/],
    [`many rows=4 want=plain ${dense}`, 'plain', /asked for/],
    [`many rows=4 want=tma k=72 ${int8}`, 'none', /asked for/],
    [`many rows=4 want=mma ${int8}`, 'mma', /int8/],
  ],
  attention: [
    ['prefill maxQuery=1', 'none', /more than one query/],
    ['decode maxQuery=1', 'split', /one query a sequence/, /width=128/],
    ['prefill maxQuery=2', 'hopper', /sm_90a/, /width=128/],
    ['decode maxQuery=2', 'none', /the only sequence/],
    ['decode maxQuery=2 sequences=2', 'split', /may have one query/],
    ['prefill maxQuery=99 headDim=64', 'hopper', /sm_90a/, /width=64/],
    ['prefill maxQuery=99 headDim=192', 'mma', /over 128/, /width=192/],
    ['prefill maxQuery=99 headDim=80 capability=89', 'mma', /no wgmma/, /width=96/],
    ['prefill maxQuery=99 wgmma=0', 'mma', /no wgmma/, /width=128/],
    ['decode headDim=192', 'split', /one query/, /width=256/],
    ['decode headDim=72 act=bf16', 'split', /one query/, /width=96/],
    ...Array.from({ length: 28 }, (_, i) => 40 + 8 * i).flatMap((headDim): Case[] => [
      [`prefill maxQuery=99 headDim=${headDim}`, headDim > 128 ? 'mma' : 'hopper', /headDim/],
      [`prefill maxQuery=99 headDim=${headDim} capability=80`, 'mma', /no wgmma/],
      [`decode headDim=${headDim}`, 'split', /one query/],
    ]),
    ['prefill maxQuery=99 headDim=192 valueDim=128', 'mma', /over 128/, /width=192/],
    ['prefill maxQuery=99 headDim=128 valueDim=64', 'hopper', /sm_90a/, /width=128/],
    ['prefill maxQuery=99 headDim=64 valueDim=96', 'hopper', /sm_90a/, /width=128/],
    ['prefill maxQuery=99 headDim=64 valueDim=60', 'any', /valueDim/],
    ['decode headDim=192 valueDim=128', 'split', /one query/, /width=256/],
    ['decode headDim=64 valueDim=264', 'any', /valueDim/],
    ['decode headDim=264', 'any', /headDim/],
    ['prefill headDim=20 maxQuery=5', 'any', /headDim/],
    ['prefill act=f32 maxQuery=5', 'any', /32 bits/],
    ['decode cache=f32', 'any', /cache/],
    ['decode aligned=0', 'any', /not aligned/],
    ['decode capability=75', 'any', /below 8.0/],
  ],
  rope: [
    ['rope', 'pairs', /even/, /lane=2 heads=1/],
    ['rope tokens=600', 'pairs', /even/, /heads=4/],
    ['rope rotaryDim=256 headDim=256', 'pairs', /even/, /lane=8/],
    ['rope headDim=90 units=90', 'singles', /odd/],
    ['rope interleaved=1 units=66', 'singles', /odd/],
    ['rope aligned=0', 'singles', /not aligned/],
  ],
  experts: [
    ['experts rows=0', 'none', /no rows/],
    ['experts rows=1', 'rows', /few/, /wide/],
    ['experts rows=16 kind=dense', 'rows', /few/, /wide/],
    ['experts rows=1 k=2040', 'rows', /few/, /^$/],
    ['experts rows=1 aligned=0', 'rows', /few/, /^$/],
    ['experts rows=1 block=8', 'rows', /few/, /^$/],
    ['experts rows=17', 'grouped', /many/],
    ['experts rows=4096 kind=dense', 'grouped', /many/],
    ['experts rows=17 kind=dense weight=bf16', 'rows', /dtype/, /wide/],
    ['experts rows=17 kind=int8', 'rows', /int8/, /wide/],
    ['experts rows=17 act=f32', 'rows', /f32/, /wide/],
    ['experts rows=17 capability=75', 'rows', /tensor cores/],
    ['experts rows=17 k=2080', 'rows', /whole tiles/, /wide/],
    ['experts rows=17 aligned=0', 'rows', /whole tiles/],
    ['experts rows=17 block=32', 'rows', /less than a tile/, /wide/],
  ],
  norms: [
    ['norm width=4096', 'one_pack', /latency/, /threads=512/],
    ['norm width=4096 rows=132', 'one_pack', /latency/],
    ['norm width=4096 rows=133', 'two_packs', /many rows/, /threads=256/],
    ['norm width=2048 rows=4096', 'one_pack', /latency/, /threads=256/],
    ['norm width=8192', 'one_pack', /latency/, /threads=1024/],
    ['norm width=8200', 'two_packs', /8192/, /threads=544/],
    ['norm width=16392', 'four_packs', /16384/, /threads=544/],
    ['norm width=32768', 'four_packs', /16384/, /threads=1024/],
    ['norm width=32776', 'any', /registers/, /threads=256/],
    ['norm width=100', 'any', /multiple of 8/],
    ['norm aligned=0', 'any', /not aligned/],
  ],
  'rows to int8': [
    ['rows', 'packs', /whole/],
    ['rows width=100', 'singles', /multiple of 8/],
    ['rows aligned=0', 'singles', /not aligned/],
  ],
};

const prefixed = (cases: readonly Case[]) =>
  cases.map(([facts, kernel, reason, fields]): Case => [`linear ${facts}`, kernel, reason, fields]);
const families: Readonly<Record<string, readonly Case[]>> = {
  'a linear of few rows': prefixed(fewRows),
  'a linear of many rows': prefixed(manyRows),
  'odd linears': prefixed(odd),
  ...others,
};

describe('which kernel, and why', () => {
  const answers = new Map<string, readonly string[]>();
  beforeAll(() => {
    const linear = ['linear/choice.cpp', 'linear/choice_few.cpp', 'linear/choice_many.cpp'];
    const program = compile('choice', ['test/choice.cpp', ...linear, 'attention/choice.cpp']);
    const lines = Object.values(families).flatMap((cases) => cases.map(([facts]) => facts));
    const { stdout, stderr, status } = spawnSync(program, { input: `${lines.join('\n')}\n`, encoding: 'utf8' });
    expect(stderr).toBe('');
    expect(status).toBe(0);
    stdout.split('\n').forEach((line, i) => answers.set(lines[i], line.split('\t')));
  }, 120_000);

  describe.each(Object.entries(families))('%s', (_, cases) => {
    it.each(cases.map(([facts, kernel, reason, fields]) => ({ facts, kernel, reason, fields })))(
      '$facts: $kernel',
      ({ facts, kernel, reason, fields }) => {
        const [chosen, why, rest] = answers.get(facts) ?? [];
        expect(chosen, why).toBe(kernel);
        expect(why).toMatch(reason);
        if (fields) expect(rest).toMatch(fields);
      },
    );
  });
});

it('what may load early, and what may wait', () => {
  const { stdout, status } = spawnSync(compile('unsettled', ['test/unsettled.cpp']), { encoding: 'utf8' });
  expect(stdout).toBe('ok\n');
  expect(status).toBe(0);
}, 120_000);
