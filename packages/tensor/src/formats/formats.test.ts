import { afterAll, describe, expect, it } from 'vitest';
import { referenceBackend } from '../reference/driver.js';
import { dtypes } from '../dtype.js';
import { weightKinds } from '../driver/schema.js';
import { bnb4Bytes, quantizeBnb4 } from './bnb4/bnb4.js';
import { denseWeight } from './dense/dense.js';
import { int8Bytes, quantizeInt8 } from './int8/int8.js';
import {
  disposeWeight,
  formatOf,
  mapWeight,
  weightBytes,
  weightFootprint,
  weightFormats,
  weightLabel,
  weightScales,
  weightTensors,
  type Weight,
} from './registry.js';

const backend = referenceBackend();
afterAll(() => backend.close());

const [n, k] = [6, 100];
const values = () =>
  backend
    .tensor(
      Float32Array.from({ length: n * k }, (_, i) => ((i * 31) % 97) / 48 - 1),
      [n, k],
      'f16',
    )
    .keep();
const weights: Record<string, { make: () => Weight; label: string; bytes: number; footprint: number; scales: number }> =
  {
    dense: { make: () => denseWeight(values()), label: 'dense', bytes: 2 * n * k, footprint: 2 * n * k, scales: 0 },
    nf4: {
      make: () => quantizeBnb4(values(), { quantType: 'nf4' }),
      label: 'nf4',
      bytes: bnb4Bytes(n * k),
      footprint: (n * k) / 2,
      scales: 1,
    },
    'fp4 nested': {
      make: () => quantizeBnb4(values(), { quantType: 'fp4', doubleQuant: true, computeDtype: 'bf16' }),
      label: 'fp4',
      bytes: bnb4Bytes(n * k, { doubleQuant: true }),
      footprint: (n * k) / 2,
      scales: 2,
    },
    int8: { make: () => quantizeInt8(values()), label: 'int8', bytes: int8Bytes(n, k), footprint: n * k, scales: 1 },
  };

it('has a format for every kind of the command table, once', () => {
  expect(weightFormats.map(({ kind }) => kind).sort()).toEqual(Object.keys(weightKinds).sort());
});

describe.each(Object.entries(weights))('%s', (_, { make, label, bytes, footprint, scales }) => {
  it('counts, names and shows its tensors', () => {
    const weight = make();
    expect(weightLabel(weight)).toBe(label);
    expect([weightBytes(weight), weightFootprint(weight)]).toEqual([bytes, footprint]);
    expect(weight.shape).toEqual([n, k]);
    const own = weightTensors(weight);
    expect(new Set(own).size).toBe(own.length);
    expect(weightScales(weight)).toHaveLength(scales);
    expect(weightScales(weight).every((tensor) => own.includes(tensor))).toBe(true);
    expect(formatOf(weight).fields(weight).weight.buffer).toBe(own[0].ref().buffer);
    disposeWeight(weight);
    expect(own.every(({ disposed }) => disposed)).toBe(true);
  });

  it('is the same weight when each tensor is replaced by a copy', async () => {
    const weight = make();
    const copy = mapWeight(weight, (tensor) => tensor.to(backend, { persistent: true }).keep());
    expect(copy).toMatchObject({ kind: weight.kind, shape: weight.shape });
    const before = await formatOf(weight).values(weight, 'f32').data();
    disposeWeight(weight);
    expect(await formatOf(copy).values(copy, 'f32').data()).toEqual(before);
    disposeWeight(copy);
  });
});

describe('rows of a weight', () => {
  const shape = [512, 96] as const; // 768 blocks of 64
  const many = backend
    .tensor(
      Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => ((i * 31) % 97) / 48 - 1),
      shape,
      'f16',
    )
    .keep();
  const nf4 = quantizeBnb4(many, { quantType: 'nf4' });
  const nested = quantizeBnb4(many, { quantType: 'nf4', doubleQuant: true });
  // 1536 blocks: the second half begins with the fourth block of blocks.
  const twice = quantizeBnb4(
    backend
      .tensor(
        new Float32Array(1024 * 96).map((_, i) => Math.sin(i)),
        [1024, 96],
        'f16',
      )
      .keep(),
    { quantType: 'nf4', doubleQuant: true },
  );
  const valuesOf = (weight: Weight) => formatOf(weight).values(weight, 'f32').data();

  it.each([
    ['dense', denseWeight(many), 5, 9],
    ['int8', quantizeInt8(many), 5, 9],
    ['nf4', nf4, 2, 6],
    ['nf4 to its end', nf4, 2, 512],
    ['nested', nested, 0, 6],
    ['nested, from a block of blocks on', twice, 512, 1024],
  ] as const)('%s: those of the whole', async (_, weight, start, end) => {
    const rows = formatOf(weight).rows(weight, start, end)!;
    expect(rows.shape).toEqual([end - start, 96]);
    const all = await valuesOf(weight);
    expect(await valuesOf(rows)).toEqual(all.slice(96 * start, 96 * end));
  });

  it('are none where they begin or end within a block of values, or of blocks', () => {
    expect(formatOf(nf4).rows(nf4, 1, 512)).toBeUndefined();
    expect(formatOf(nf4).rows(nf4, 0, 1)).toBeUndefined();
    expect(formatOf(nested).rows(nested, 256, 512)).toBeUndefined();
  });
});

it('element types keep the order and the codes of the native ABI', () => {
  expect(Object.values(dtypes).map(({ code }) => code)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
});
