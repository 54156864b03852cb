// The commands that a lowering queues, for the ops of a small decoder with every kind of weight.
import { describe, expect, it } from 'vitest';
import { openBackend, type Backend } from '../core/backend.js';
import type { Tensor } from '../core/tensor.js';
import { dtypeFromCode, type DType } from '../dtype.js';
import type { TensorRef } from '../driver/schema.js';
import { attention, packedQkv, ropeKvWrite, type PagedRows } from '../ops/attention.js';
import { headNorm, queryKeyParts } from '../ops/head-norm.js';
import { activation, add, gatedActivation, multiply, scaleInPlace, softmax } from '../ops/elementwise.js';
import { linear, type LinearPart } from '../ops/linear.js';
import { layerNorm, rmsNorm } from '../ops/norm.js';
import { concatColumns, embedding } from '../ops/rows.js';
import { quantizeBnb4 } from '../formats/bnb4/bnb4.js';
import { denseWeight } from '../formats/dense/dense.js';
import { quantizeInt8 } from '../formats/int8/int8.js';
import type { Weight } from '../formats/registry.js';
import { ReferenceDriver } from '../reference/driver.js';
import { eager } from './eager.js';
import { fused } from './fused.js';

function shown(value: unknown): string {
  if (typeof value === 'number') return String(value);
  if (Array.isArray(value)) return `[${value.map(shown).join(' | ')}]`;
  const { buffer, offset, bytes, dtypeCode } = value as TensorRef;
  if (buffer !== undefined) return `#${buffer}+${offset}:${bytes}.${dtypeFromCode(dtypeCode)}`;
  return shownFields(value as object);
}

/** Fields that are neither absent nor zero. */
const shownFields = (fields: object) =>
  Object.entries(fields)
    .filter(([, value]) => value !== undefined && value !== 0)
    .map(([name, value]) => `${name}=${shown(value)}`)
    .sort()
    .join(' ');

/** A layer in the manner of Llama, and the ops that it does not have. */
function layer(backend: Backend): void {
  const [tokens, width, heads, kvHeads, headDim] = [6, 64, 4, 2, 16];
  const t = (shape: readonly number[], dtype: DType = 'f32') => {
    const tensor = backend.empty(shape, dtype);
    return tensor;
  };
  const norms = Array.from({ length: 3 }, () => t([width], 'bf16'));
  const dense = (n: number, k: number, bias = false): LinearPart => ({
    weight: { kind: 'dense', shape: [n, k], values: t([n, k], 'bf16') },
    bias: bias ? t([n], 'bf16') : undefined,
  });
  const nf4 = (n: number, k: number): LinearPart => ({
    weight: quantizeBnb4(t([n, k]), { quantType: 'nf4', doubleQuant: true, computeDtype: 'f16' }),
  });
  const int8 = (n: number, k: number): LinearPart => ({
    weight: quantizeInt8(t([n, k]), { threshold: 6 }),
    bias: t([n]),
  });
  const layout = packedQkv(heads, kvHeads, headDim);
  const cache = () => t([2, kvHeads, 8, headDim]);
  const kv = { keys: cache(), values: cache() };
  const i32 = (...shape: number[]) => t(shape, 'i32');
  const tokenIds = i32(tokens);
  const batch: PagedRows = {
    tokens,
    sequences: 1,
    maxQuery: tokens,
    maxContext: 10,
    positions: i32(tokens),
    sequenceOf: i32(tokens),
    sequenceStarts: i32(2),
    contextLengths: i32(1),
    blockTables: i32(1, 2),
  };
  const queries = heads * headDim;
  const keys = kvHeads * headDim;

  let x: Tensor = embedding(t([10, width], 'bf16'), tokenIds, { dtype: 'f32', scale: 8 });
  embedding(t([10, width]), tokenIds, { dtype: 'f32' });
  let y: Tensor = rmsNorm(x, norms[0], { eps: 1e-5 });
  y = linear(y, [dense(queries, width, true), dense(keys, width), int8(keys, width)]);
  ropeKvWrite(y, kv, batch, layout, { inverseFrequencies: t([headDim / 2]), scale: 1.1 });
  ropeKvWrite(y, kv, batch, layout);
  headNorm(y, queryKeyParts(layout, { query: t([headDim], 'bf16'), key: t([kvHeads, headDim]) }), { eps: 1e-6 });
  headNorm(y, [{ weight: t([9]), offset: 1 }], { eps: 1e-5, centred: true, weightOffset: 1 });
  concatColumns([{ x: y, from: queries, offset: 3, count: 2, width: 8 }], 19);
  const queryScaling = { beta: 0.1, length: 64 };
  ropeKvWrite(y, kv, batch, layout, { inverseFrequencies: t([2]), offset: 12, interleaved: true, queryScaling });
  attention(y, kv, batch, layout, { sinks: t([heads], 'bf16') });
  const distanceBias = { table: t([9, heads]), offset: 4 };
  attention(y, kv, batch, layout, { causal: false, scale: 1, distanceBias });
  y = attention(y, kv, batch, layout, { window: 4, softcap: 30, alibiSlopes: t([heads]) });
  x = linear(y, [nf4(width, queries)], { residual: x });
  y = rmsNorm(x, norms[1], { eps: 1e-5, residual: t([tokens, width]), weightOffset: 1 });
  y = linear(y, [nf4(96, width), nf4(96, width)], { activation: 'silu', gated: true });
  x = linear(y, [int8(width, 96)], { residual: x, activation: 'gelu' });
  x = layerNorm(x, { weight: norms[2], bias: t([width]), eps: 1e-6, residual: t([tokens, width]) });
  linear(x, [nf4(96, width), nf4(96, width)], { activation: 'quick_gelu', gated: true, limit: 7, upOffset: 1 });
  rmsNorm(x, norms[0], { eps: 1e-5, roundFirst: false });
  gatedActivation(x, 'quick_gelu', { limit: 7, upOffset: 1 });
  y = gatedActivation(x, 'gelu_tanh');
  y = multiply(y, t([width / 2], 'bf16'));
  y = add(y, multiply(y, t([tokens, width / 2])));
  activation(y, 'relu', { inPlace: true });
  scaleInPlace(y, { factor: 0.5 });
  scaleInPlace(y, { factor: 2, softcap: 30 });
  softmax(activation(y, 'tanh'));
  linear(t([tokens, width], 'bf16'), [dense(8, width, true)], { inFp32: true });
}

function commandsOf(run: (backend: Backend, fn: () => void) => void): string {
  const backend = openBackend(new ReferenceDriver());
  const lines: string[] = [];
  backend.trace((name, args) => lines.push(`${name} ${shownFields(args as object)}`));
  run(backend, () => backend.scope(() => layer(backend)));
  void backend.close();
  return `${lines.join('\n')}\n`;
}

it('fused: one command an op', async () => {
  await expect(commandsOf((_, fn) => fn())).toMatchFileSnapshot('../../fixtures/lowering/fused.txt');
});

it.each(['f32', 'f16', 'bf16'] as const)('eager in %s: steps, each rounded', async (dtype) => {
  await expect(commandsOf((backend, fn) => backend.lowered(eager(dtype), fn))).toMatchFileSnapshot(
    `../../fixtures/lowering/eager-${dtype}.txt`,
  );
});

it('another lowering sees every op once, by its name', () => {
  const seen: string[] = [];
  const watching = new Proxy(fused, {
    get(target, name: keyof typeof fused) {
      seen.push(name);
      return target[name];
    },
  });
  commandsOf((backend, fn) => backend.lowered(watching, fn));
  const expected =
    'embedding embedding rmsNorm linear ropeKvWrite ropeKvWrite headNorm headNorm concatColumns ropeKvWrite attention ' +
    'attention attention linear rmsNorm linear linear layerNorm linear rmsNorm gatedActivation gatedActivation multiply multiply add activation scaleInPlace scaleInPlace activation softmax linear';
  expect(seen.join(' ')).toBe(expected);
});

describe('gate and up in one weight', () => {
  const [n, k] = [256, 64];
  const results = async (format: (values: Tensor) => Weight, residual: boolean) => {
    const backend = openBackend(new ReferenceDriver());
    const values = Float32Array.from({ length: 2 * n * k }, (_, i) => Math.sin(i * i) / 8);
    const rows = Float32Array.from({ length: 3 * k }, (_, i) => Math.cos(i));
    const weight = format(backend.tensor(values, [2 * n, k], 'f32').keep());
    const x = backend.tensor(rows, [3, k], 'f32');
    const added = residual ? backend.tensor(new Float32Array(3 * n).fill(2), [3, n], 'f32') : undefined;
    const commands: string[] = [];
    backend.trace((name) => commands.push(name));
    const y = await linear(x, [{ weight }], { activation: 'silu', gated: true, residual: added }).data();
    backend.trace(undefined);
    const steps = gatedActivation(linear(x, [{ weight }]), 'silu');
    const expected = await (added ? add(added, steps) : steps).data();
    await backend.close();
    return { commands, y, expected };
  };
  const nested = (values: Tensor) => quantizeBnb4(values, { quantType: 'nf4', doubleQuant: true });

  it.each([
    ['dense', denseWeight],
    ['nf4', (values: Tensor) => quantizeBnb4(values, { quantType: 'nf4' })],
    ['nested nf4', nested],
    ['int8', (values: Tensor) => quantizeInt8(values)],
  ] as const)('%s: one command', async (_, format) => {
    const { commands, y, expected } = await results(format, true);
    expect(commands).toEqual(['linear']);
    y.forEach((value, i) => expect(value).toBeCloseTo(Number(expected[i]), 5));
  });

  it.each([true, false])('two commands where a half begins within a block (residual: %s)', async (residual) => {
    const { commands, y, expected } = await results(
      (values) => quantizeBnb4(values, { quantType: 'nf4', blockSize: 4096, doubleQuant: true }),
      residual,
    );
    expect(commands).toEqual(['linear', 'gatedActivation', ...(residual ? ['add'] : [])]);
    expect(y).toEqual(expected);
  });
});
