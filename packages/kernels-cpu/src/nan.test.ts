import { Backend, linear, quantizeInt8 } from '@q/tensor';
import { afterAll, describe, expect, it } from 'vitest';
import { cpuAddon, type CpuIsa } from './index.js';

const addon = cpuAddon();
const isas: readonly CpuIsa[] = ['scalar', 'avx2', 'avx512'];
const [k, n] = [70, 33];
const noise = (count: number) => Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + 1));

// Codes of eight bits have no NaN, so its row must carry it otherwise; an infinity is an outlier, or has no code too.
describe.each(isas)('%s: what is not finite in x reaches every value of its row', (isa) => {
  const backend = new Backend(addon.open(0, { isa, threads: 2 }));
  afterAll(() => backend.close());

  const rowsOf = async (threshold: number, rows: number, broken: number, value: number, relu = false) => {
    const weight = quantizeInt8(backend.tensor(noise(n * k), [n, k], 'f32'), { threshold });
    const values = noise(rows * k);
    values[broken * k + 5] = value;
    const y = linear(backend.tensor(values, [rows, k], 'f32'), [{ weight }], relu ? { activation: 'relu' } : {});
    const data = (await y.data()) as Float32Array;
    return Array.from({ length: rows }, (_, row) => [...data.subarray(row * n, (row + 1) * n)]);
  };

  it.each([
    [0, 1],
    [6, 1],
    [0, 3],
    [6, 3],
    [0, 40],
    [6, 40],
  ])('int8 of threshold %d, %d rows', async (threshold, rows) => {
    const broken = rows >> 1;
    for (const value of [NaN, Infinity, -Infinity]) {
      for (const [row, values] of (await rowsOf(threshold, rows, broken, value)).entries())
        expect(values.filter(Number.isFinite).length, `${value} in row ${broken}, row ${row}`).toBe(
          row === broken ? 0 : n,
        );
    }
  });

  it('relu behind the product keeps NaN', async () => {
    for (const rows of [1, 40]) expect((await rowsOf(0, rows, 0, NaN, true))[0].every(Number.isNaN)).toBe(true);
  });
});
