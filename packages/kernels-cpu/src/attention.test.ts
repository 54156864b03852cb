import { commandCodes, encode, ReferenceDriver, type CommandArgs, type Driver, type TensorRef } from '@q/tensor';
import { afterAll, describe, expect, it } from 'vitest';
import { cpuAddon } from './index.js';

const addon = cpuAddon();
const opened: Driver[] = [];
const open = (options: Parameters<typeof addon.open>[1]) => {
  const driver = addon.open(0, options);
  opened.push(driver);
  return driver;
};
afterAll(() => Promise.all(opened.map((driver) => driver.close())));

interface Case {
  readonly queries: readonly number[];
  readonly contexts: readonly number[];
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly window?: number;
  readonly causal?: boolean;
  readonly softcap?: number;
  readonly alibi?: boolean;
  readonly cache?: 'f32' | 'f16' | 'bf16';
}

/** A repeatable number in (-1, 1) for each index. */
const noise = (i: number) => Math.sin(i * 12.9898 + 1) * Math.cos(i * 78.233);

/**
 * Out of one attention command, by any driver; the numbers of a sequence depend on its length and place `from` only.
 */
async function attend(driver: Driver, c: Case, from = 0): Promise<Float32Array> {
  const { numHeads, numKvHeads, headDim } = c;
  const [blockSize, sequences] = [16, c.queries.length];
  const maxBlocks = Math.ceil(Math.max(...c.contexts, 1) / blockSize);
  const tokens = c.queries.reduce((a, b) => a + b, 0);
  const buffers: number[] = [];
  const tensor = (data: Float32Array | Int32Array, dtypeCode: number): TensorRef => {
    const buffer = driver.alloc(Math.max(data.byteLength, 4));
    buffers.push(buffer);
    driver.write(buffer, 0, new Uint8Array(data.buffer));
    return { buffer, offset: 0, dtypeCode, bytes: data.byteLength };
  };
  const starts = c.queries.reduce((all, n) => [...all, all[all.length - 1] + n], [0]);
  const qkv = new Float32Array(tokens * numHeads * headDim);
  c.queries.forEach((n, b) =>
    qkv.set(
      Float32Array.from({ length: n * numHeads * headDim }, (_, i) => 2 * noise(i + (b + from) * 1e5)),
      starts[b] * numHeads * headDim,
    ),
  );
  const perSequence = maxBlocks * numKvHeads * blockSize * headDim;
  const cacheOf = (salt: number): TensorRef => {
    const values = Float32Array.from({ length: sequences * perSequence }, (_, i) =>
      noise((i % perSequence) + (Math.floor(i / perSequence) + from) * 7e4 + salt),
    );
    const f32 = tensor(values, 0);
    const dtypeCode = ['f32', 'f16', 'bf16'].indexOf(c.cache ?? 'f32');
    if (dtypeCode === 0) return f32;
    const out = { ...tensor(new Float32Array(values.length / 2), dtypeCode) };
    driver.submit(commandCodes.cast, encode('cast', { x: f32, out }));
    return out;
  };
  const args: CommandArgs<'attention'> = {
    qkv: tensor(qkv, 0),
    keyCache: cacheOf(0.25),
    valueCache: cacheOf(0.5),
    out: tensor(new Float32Array(qkv.length), 0),
    sequenceStarts: tensor(Int32Array.from(starts), 5),
    contextLengths: tensor(Int32Array.from(c.contexts), 5),
    blockTables: tensor(
      Int32Array.from({ length: sequences * maxBlocks }, (_, i) => i),
      5,
    ),
    alibiSlopes: c.alibi
      ? tensor(
          Float32Array.from({ length: numHeads }, (_, h) => 2 ** -(h + 1)),
          0,
        )
      : undefined,
    distanceBias: undefined,
    sinks: undefined,
    tokens,
    sequences,
    maxQuery: Math.max(...c.queries),
    maxContext: Math.max(...c.contexts),
    numHeads,
    numKvHeads,
    headDim,
    valueDim: headDim,
    scale: headDim ** -0.5,
    softcap: c.softcap ?? 0,
    causal: c.causal === false ? 0 : 1,
    window: c.window ?? 0,
    distances: 0,
    biasOffset: 0,
    qOffset: 0,
    qGroupStride: (numHeads / numKvHeads) * headDim,
    rowStride: numHeads * headDim,
    blockSize,
    maxBlocks,
  };
  driver.submit(commandCodes.attention, encode('attention', args));
  const out = new Float32Array(await driver.read(args.out.buffer, 0, args.out.bytes));
  for (const buffer of buffers) driver.release(buffer);
  return out;
}

const isa = ['avx512', 'avx2', 'scalar'] as const;
const cases: Record<string, Case> = {
  'several key splits, one query': {
    queries: [1, 1, 1],
    contexts: [1500, 1, 513],
    numHeads: 4,
    numKvHeads: 2,
    headDim: 24,
  },
  'more heads than a split takes': { queries: [1], contexts: [700], numHeads: 11, numKvHeads: 1, headDim: 16 },
  'few queries late in a context': { queries: [2, 3], contexts: [1030, 70], numHeads: 2, numKvHeads: 1, headDim: 32 },
  'several row blocks, mixed with decode and an empty sequence': {
    queries: [150, 1, 0, 33],
    contexts: [150, 90, 0, 200],
    numHeads: 3,
    numKvHeads: 3,
    headDim: 20,
  },
  'window across splits and tiles': {
    queries: [1, 80],
    contexts: [1200, 300],
    numHeads: 4,
    numKvHeads: 2,
    headDim: 8,
    window: 70,
  },
  'not causal, softcap, ALiBi': {
    queries: [40, 1],
    contexts: [40, 65],
    numHeads: 4,
    numKvHeads: 4,
    headDim: 12,
    causal: false,
    softcap: 3,
    alibi: true,
  },
  'f16 cache': { queries: [30, 1], contexts: [100, 70], numHeads: 4, numKvHeads: 2, headDim: 40, cache: 'f16' },
  'bf16 cache, a head of 288': {
    queries: [20, 1],
    contexts: [100, 70],
    numHeads: 2,
    numKvHeads: 1,
    headDim: 288,
    cache: 'bf16',
  },
};

describe.each(isa)('attention with %s at most', (set) => {
  it.each(Object.entries(cases))('%s', async (_, c) => {
    const expected = await attend(new ReferenceDriver(), c);
    const got = await attend(open({ isa: set, threads: 2 }), c);
    // Errors of f32 dot products and of exp, relative to values of size 1.
    expect(Math.max(...got.map((value, i) => Math.abs(value - expected[i])))).toBeLessThan(3e-6);
  });
});

it('gives the same bits for any number of threads and whatever the neighbours', async () => {
  const shape = { numHeads: 4, numKvHeads: 2, headDim: 32 };
  const together: Case = { queries: [100, 1, 5], contexts: [300, 1300, 40], ...shape };
  const one = await attend(open({ threads: 1 }), together);
  expect(await attend(open({ threads: 5 }), together)).toEqual(one);
  let row = 0;
  for (let b = 0; b < 3; b++) {
    // Caches are laid out for the longest context, so the lone sequence keeps that length through a second, empty one.
    const alone = await attend(
      open({ threads: 2 }),
      { ...shape, queries: [together.queries[b], 0], contexts: [together.contexts[b], 1300] },
      b,
    );
    const width = together.queries[b] * shape.numHeads * shape.headDim;
    expect(alone).toEqual(one.slice(row, row + width));
    row += width;
  }
});

it('refuses blocks, lengths and rows that lie outside', async () => {
  const driver = open({ threads: 1 });
  const c: Case = { queries: [1], contexts: [4], numHeads: 1, numKvHeads: 1, headDim: 4 };
  await expect(attend(driver, { ...c, contexts: [-5] })).rejects.toMatchObject({
    command: 'attention',
    message: expect.stringContaining('-5'),
  });
  const short: Case = { ...c, queries: [3], contexts: [2] };
  await expect(attend(driver, short)).rejects.toThrow('3 rows and context length 2');
  await expect(attend(driver, { ...short, causal: false })).resolves.toHaveLength(12);
  await expect(attend(driver, { ...c, contexts: [0], causal: false })).rejects.toThrow('no keys');
});
