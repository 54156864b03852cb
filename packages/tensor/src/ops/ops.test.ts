// What every op refuses before it queues anything: message with the op's name, both shapes or dtypes.
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { ConfigError, DTypeError, ShapeError } from '@q/config';
import type { DType } from '../dtype.js';
import { ReferenceDriver } from '../reference/driver.js';
import { openBackend, type Backend } from '../core/backend.js';
import { quantizeBnb4 } from '../formats/bnb4/bnb4.js';
import { quantizeInt8 } from '../formats/int8/int8.js';
import type { Weight } from '../formats/registry.js';
import { attention, keyValueLayout, packedQkv, queryLayout, ropeKvWrite, type PagedRows } from './attention.js';
import {
  activation,
  add,
  argmax,
  cast,
  copy,
  crossEntropy,
  fillRandom,
  gatedActivation,
  multiply,
  scaleInPlace,
  softmax,
} from './elementwise.js';
import { linear } from './linear.js';
import { layerNorm, rmsNorm } from './norm.js';
import { embedding, scatterRows, selectRows } from './rows.js';
import { advance, sample } from './sampling.js';
import { eager } from '../lowering/eager.js';
import { fused } from '../lowering/fused.js';

/** The reference, limited to f32 activations as the CPU is. */
class CpuLikeDriver extends ReferenceDriver {
  override readonly info = { ...new ReferenceDriver().info, activationDtypes: ['f32'] as const };
}

const backend: Backend = openBackend(new CpuLikeDriver());
let commands = 0;
backend.trace(() => void (commands += 1));
beforeEach(() => void (commands = 0));
afterAll(() => backend.close());

const t = (shape: readonly number[], dtype: DType = 'f32') => backend.empty(shape, dtype);
const dense = (n: number, k: number): Weight => ({ kind: 'dense', shape: [n, k], values: t([n, k]) });
const layout = packedQkv(4, 2, 8);
const kv = (blocks = 2, dtype: DType = 'f32') => ({
  keys: t([blocks, 2, 4, 8], dtype),
  values: t([blocks, 2, 4, 8], dtype),
});
const i32 = (...shape: number[]) => t(shape, 'i32');
const batch = (change: Partial<PagedRows> = {}): PagedRows => ({
  tokens: 3,
  sequences: 1,
  maxQuery: 3,
  maxContext: 3,
  positions: i32(3),
  sequenceOf: i32(3),
  sequenceStarts: i32(2),
  contextLengths: i32(1),
  blockTables: i32(1, 1),
  ...change,
});
const qkv = (dtype: DType = 'f32') => t([3, layout.rowStride], dtype);
const state = (change = {}) => ({ floats: t([2, 4]), ints: i32(2, 4), counters: i32(2), ...change });
const target = (change = {}) => ({ tokenIds: i32(2), positions: i32(2), contextLengths: i32(2), ...change });

const shapes: [op: string, what: string, run: () => unknown][] = [
  ['linear', 'x of another width', () => linear(t([2, 7]), [{ weight: dense(3, 8) }])],
  ['linear', 'x of three axes', () => linear(t([1, 2, 8]), [{ weight: dense(3, 8) }])],
  ['linear', 'no weight', () => linear(t([2, 8]), [])],
  [
    'linear',
    'five weights',
    () =>
      linear(
        t([2, 8]),
        Array.from({ length: 5 }, () => ({ weight: dense(3, 8) })),
      ),
  ],
  ['linear', 'a bias of another width', () => linear(t([2, 8]), [{ weight: dense(3, 8), bias: t([4]) }])],
  [
    'linear',
    'gate and up of two sizes',
    () => linear(t([2, 8]), [{ weight: dense(3, 8) }, { weight: dense(4, 8) }], { gated: true }),
  ],
  ['linear', 'a gate alone', () => linear(t([2, 8]), [{ weight: dense(3, 8) }], { gated: true })],
  [
    'linear',
    'a residual of another shape',
    () => linear(t([2, 8]), [{ weight: dense(3, 8) }], { residual: t([3, 2]) }),
  ],
  ['embedding', 'a table of one axis', () => embedding(t([8]), i32(2), { dtype: 'f32' })],
  ['embedding', 'ids of two axes', () => embedding(t([4, 8]), i32(1, 2), { dtype: 'f32' })],
  ['selectRows', 'x of one axis', () => selectRows(t([4]), i32(2))],
  ['scatterRows', 'more rows than indices', () => scatterRows(t([3, 4]), i32(2), t([5, 4]))],
  ['scatterRows', 'another width', () => scatterRows(t([2, 4]), i32(2), t([5, 3]))],
  ['rmsNorm', 'a weight of another width', () => rmsNorm(t([2, 8]), t([7]), { eps: 1e-5 })],
  ['rmsNorm', 'a residual of another shape', () => rmsNorm(t([2, 8]), t([8]), { eps: 1e-5, residual: t([1, 8]) })],
  ['layerNorm', 'a bias of another width', () => layerNorm(t([2, 8]), { bias: t([9]), eps: 1e-5 })],
  ['layerNorm', 'rows of width 0', () => layerNorm(t([2, 0]), { eps: 1e-5 })],
  ['add', 'two shapes', () => add(t([2, 3]), t([3, 2]))],
  ['multiply', 'two shapes', () => multiply(t([2, 3]), t([3, 2]))],
  ['multiply', 'a row of another width', () => multiply(t([2, 3]), t([2]))],
  ['copy', 'two counts', () => copy(t([2]), t([3]))],
  ['gatedActivation', 'an odd width', () => gatedActivation(t([2, 5]), 'silu')],
  ['crossEntropy', 'targets of another count', () => crossEntropy(t([2, 8]), i32(3))],
  ['sample', 'logits of one axis', () => sample(t([8]), state())],
  ['sample', 'options of another batch', () => sample(t([2, 8]), state({ floats: t([3, 4]) }))],
  ['sample', 'counters of another batch', () => sample(t([2, 8]), state({ counters: i32(1) }))],
  ['advance', 'positions of another batch', () => advance(i32(2), target({ positions: i32(3) }), state())],
  ['attention', 'heads that do not divide', () => packedQkv(4, 3, 8)],
  ['attention', 'qkv of another width', () => attention(t([3, 5]), kv(), batch(), layout)],
  [
    'attention',
    'values unlike keys',
    () => attention(qkv(), { keys: t([2, 2, 4, 8]), values: t([3, 2, 4, 8]) }, batch(), layout),
  ],
  ['attention', 'block tables that are too short', () => attention(qkv(), kv(), batch({ maxContext: 5 }), layout)],
  [
    'attention',
    'a distance bias of other heads',
    () => attention(qkv(), kv(), batch(), layout, { distanceBias: { table: t([9, 2]), offset: 4 } }),
  ],
  [
    'attention',
    'a distance bias without rows',
    () => attention(qkv(), kv(), batch(), layout, { distanceBias: { table: t([0, 4]), offset: 0 } }),
  ],
  [
    'attention',
    'an offset between two rows',
    () => attention(qkv(), kv(), batch(), layout, { distanceBias: { table: t([9, 4]), offset: 0.5 } }),
  ],
  ['attention', 'rows without queries', () => attention(t([3, 32]), kv(), batch(), keyValueLayout(2, 8))],
  ['ropeKvWrite', 'rows without keys', () => ropeKvWrite(t([3, 32]), kv(), batch(), queryLayout(4, 8, 2))],
  ['attention', 'slopes of another count', () => attention(qkv(), kv(), batch(), layout, { alibiSlopes: t([3]) })],
  ['attention', 'starts of another batch', () => attention(qkv(), kv(), batch({ sequenceStarts: i32(1) }), layout)],
  ['ropeKvWrite', 'positions of another count', () => ropeKvWrite(qkv(), kv(), batch({ positions: i32(2) }), layout)],
  [
    'ropeKvWrite',
    'more frequencies than pairs',
    () => ropeKvWrite(qkv(), kv(), batch(), layout, { inverseFrequencies: t([5]) }),
  ],
  [
    'ropeKvWrite',
    'frequencies of another batch',
    () => ropeKvWrite(qkv(), kv(), batch(), layout, { inverseFrequencies: t([2, 4]) }),
  ],
  ['quantize4bit', 'a weight of one axis', () => quantizeBnb4(t([64]), { quantType: 'nf4' })],
  ['quantizeInt8', 'a weight of three axes', () => quantizeInt8(t([2, 2, 2]))],
];

const types: [op: string, what: string, run: () => unknown][] = [
  ['linear', 'x in f16 on a device of f32', () => linear(t([2, 8], 'f16'), [{ weight: dense(3, 8) }])],
  ['linear', 'a bias of integers', () => linear(t([2, 8]), [{ weight: dense(3, 8), bias: i32(3) }])],
  ['linear', 'a residual in bf16', () => linear(t([2, 8]), [{ weight: dense(3, 8) }], { residual: t([2, 3], 'bf16') })],
  ['embedding', 'ids as f32', () => embedding(t([4, 8]), t([2]), { dtype: 'f32' })],
  ['embedding', 'a table of bytes', () => embedding(t([4, 8], 'u8'), i32(2), { dtype: 'f32' })],
  ['embedding', 'a result that the device does not compute with', () => embedding(t([4, 8]), i32(2), { dtype: 'f16' })],
  ['selectRows', 'indices as i64', () => selectRows(t([4, 2]), t([2], 'i64'))],
  ['rmsNorm', 'a weight of integers', () => rmsNorm(t([2, 8]), i32(8), { eps: 1e-5 })],
  ['layerNorm', 'x of bytes', () => layerNorm(t([2, 8], 'u8'), { eps: 1e-5 })],
  ['activation', 'integers', () => activation(i32(3), 'silu')],
  ['gatedActivation', 'f16', () => gatedActivation(t([2, 4], 'f16'), 'silu')],
  ['add', 'two dtypes', () => add(t([2]), t([2], 'f16'))],
  ['multiply', 'a row of integers', () => multiply(t([2, 3]), i32(3))],
  ['scale', 'integers', () => scaleInPlace(i32(2), { factor: 2 })],
  ['softmax', 'integers', () => softmax(i32(2, 2))],
  ['argmax', 'bytes', () => argmax(t([2, 2], 'u8'))],
  ['copy', 'two dtypes', () => copy(t([2]), i32(2))],
  ['cast', 'integers', () => cast(i32(2), 'f32')],
  ['random', 'normal numbers in bytes', () => fillRandom(t([2], 'u8'), { kind: 'normal', seed: 1 })],
  ['crossEntropy', 'targets as f32', () => crossEntropy(t([2, 8]), t([2]))],
  ['sample', 'options as f16', () => sample(t([2, 8]), state({ floats: t([2, 4], 'f16') }))],
  ['advance', 'sampled tokens as f32', () => advance(t([2]), target(), state())],
  ['attention', 'qkv in f16', () => attention(qkv('f16'), kv(), batch(), layout)],
  [
    'attention',
    'values in another dtype than keys',
    () => attention(qkv(), { keys: kv().keys, values: kv(2, 'f16').values }, batch(), layout),
  ],
  [
    'attention',
    'a bias in f16',
    () => attention(qkv(), kv(), batch(), layout, { distanceBias: { table: t([9, 4], 'f16'), offset: 4 } }),
  ],
  [
    'ropeKvWrite',
    'frequencies in bf16',
    () => ropeKvWrite(qkv(), kv(), batch(), layout, { inverseFrequencies: t([4], 'bf16') }),
  ],
  ['quantize4bit', 'a weight of bytes', () => quantizeBnb4(t([2, 64], 'u8'), { quantType: 'nf4' })],
  ['quantizeInt8', 'a weight of integers', () => quantizeInt8(t([2, 64], 'i32'))],
];

describe.each([
  ['ShapeError', ShapeError, shapes],
  ['DTypeError', DTypeError, types],
] as const)('%s', (_, type, cases) => {
  it.each(cases)('%s: %s', (op, _what, run) => {
    backend.scope(() => {
      expect(run).toThrow(type);
      expect(run).toThrow(`[${op}]`);
    });
    expect(commands).toBe(0);
    expect(backend.memory().usedBytes).toBe(0);
  });
});

it('4-bit block sizes that bitsandbytes does not have are refused', () => {
  backend.scope(() => {
    for (const blockSize of [0, 32, 96, 8192])
      expect(() => quantizeBnb4(t([2, 64]), { quantType: 'nf4', blockSize })).toThrow(ConfigError);
  });
});

it('numerics are eager only where it is asked for', () => {
  const names: string[] = [];
  const device = openBackend(new CpuLikeDriver());
  device.trace((name) => names.push(name));
  const sum = () => add(device.empty([2], 'f32'), device.empty([2], 'f32')).dispose();
  expect(() =>
    device.lowered(eager('f16'), () => {
      sum();
      throw new Error('stop');
    }),
  ).toThrow('stop');
  expect(device.lowering).toBe(fused);
  sum();
  expect(names).toEqual(['add', 'cast', 'cast', 'add']);
  const other = eager('bf16');
  expect(openBackend(new CpuLikeDriver(), { lowering: other }).lowering).toBe(other);
});

it('the right arguments pass', async () => {
  backend.scope(() => {
    ropeKvWrite(qkv(), kv(), batch(), layout, { inverseFrequencies: t([4]) });
    linear(t([0, 8]), [{ weight: dense(3, 8), bias: t([3], 'bf16') }]);
    sample(t([2, 8]), state());
  });
  await backend.flush();
  expect(commands).toBe(3);
});
