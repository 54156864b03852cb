import { describe, expect, it } from 'vitest';
import { type Budgets, type Device, type Plan, PlanRefusedError, type PlanRequest, planPlacement } from './index.js';
import { models } from './testing/golden.js';

/** Examples of the documentation of accelerate and transformers. Numbers: the placements of the Python libraries. */
const bloom3b = models['bloom-3b']!;

/** How many keys of a plan each device has. */
const keysPerDevice = ({ deviceMap }: Plan): Record<string, number> => {
  const counts: Record<string, number> = {};
  for (const device of Object.values(deviceMap)) counts[device] = (counts[device] ?? 0) + 1;
  return counts;
};

const refused = (request: PlanRequest): PlanRefusedError => {
  try {
    planPlacement(request);
  } catch (error) {
    if (error instanceof PlanRefusedError) return error;
    throw error;
  }
  throw new Error('the plan was not refused');
};

const wirings = ['q', 'transformers-5'] as const;

describe.each(wirings)('examples of the documents, wiring %s', (wiring) => {
  it('bloom-3b in 8 bits with { 0: "1GB", 1: "2GB" } does not fit the GPUs: an error that carries the map', () => {
    const error = refused({
      tree: bloom3b,
      wiring,
      dtype: 'float16',
      quantization: { bits: 8 },
      maxMemory: { 0: '1GB', 1: '2GB' },
    });
    expect(error.fields.rule).toBe('quantized_offload');
    expect(error.plan.size).toBe(3_645_818_880);
    expect(error.plan.adjusted).toEqual([
      [0, 900_000_000],
      [1, 1_800_000_000],
    ]);
    expect(keysPerDevice(error.plan)).toEqual({ 1: 9, disk: 25 });
    expect(error.plan.deviceMap).toMatchObject({
      'transformer.word_embeddings': 1,
      lm_head: 1,
      'transformer.h.6': 'disk',
    });
  });

  it('the same runs with llmInt8EnableFp32CpuOffload, or where Q may run quantized modules anywhere', () => {
    const request: PlanRequest = {
      tree: bloom3b,
      wiring,
      dtype: 'float16',
      maxMemory: { 0: '1GB', 1: '2GB', cpu: '10GB' },
    };
    const offload = planPlacement({ ...request, quantization: { bits: 8, cpuOffload: true } });
    const lifted = planPlacement({ ...request, quantization: { bits: 8 }, quantizedOffload: true });
    expect(keysPerDevice(offload)).toEqual({ 1: 9, cpu: 25 });
    expect(lifted.deviceMap).toEqual(offload.deviceMap);
  });

  it('bloom-560m in 8 bits fits GPU 1 of the same machine', () => {
    const plan = planPlacement({
      tree: models['bloom-560m']!,
      wiring,
      dtype: 'float16',
      quantization: { bits: 8 },
      maxMemory: { 0: '1GB', 1: '2GB' },
    });
    expect(plan.deviceMap).toEqual({ '': 1 });
    expect(plan.notConverted).toEqual(['lm_head', 'transformer.word_embeddings']);
    expect(plan.converted).toHaveLength(96);
  });

  it('bloom-3b in 4 bits with { 0: "600MB", 1: "1GB" }: the embeddings alone are 1.28 GB', () => {
    const error = refused({
      tree: bloom3b,
      wiring,
      dtype: 'float16',
      quantization: { bits: 4 },
      maxMemory: { 0: '600MB', 1: '1GB' },
    });
    expect(error.fields.rule).toBe('quantized_offload');
    expect(error.plan.deviceMap).toEqual({ '': 'disk' });
    expect(error.plan.messages).toContainEqual(expect.objectContaining({ code: 'insufficient_memory' }));
  });

  it('{ 0: "10GiB", 1: "10GiB", cpu: "30GiB" }', () => {
    const maxMemory: Budgets = { 0: '10GiB', 1: '10GiB', cpu: '30GiB' };
    const gptj = planPlacement({ tree: models['gpt-j-6b']!, wiring, dtype: 'float16', maxMemory });
    expect(keysPerDevice(gptj)).toEqual({ 0: 16, 1: 16 });
    const t5 = planPlacement({ tree: models['t5-11b']!, wiring, dtype: 'float16', maxMemory });
    expect(keysPerDevice(t5)).toEqual({ 0: 4, 1: 19, cpu: 7 });
    expect(t5.deviceMap).toMatchObject({
      shared: 0,
      encoder: 0,
      'decoder.embed_tokens': 0,
      lm_head: 0,
      'decoder.block.19': 'cpu',
    });
  });

  it('bloom-176b with { 0: "30GIB", 1-7: "46GIB" }', () => {
    const maxMemory: [Device, string][] = [
      [0, '30GIB'],
      ...[1, 2, 3, 4, 5, 6, 7].map((id): [Device, string] => [id, '46GIB']),
    ];
    const plan = planPlacement({ tree: models['bloom-176b']!, wiring, dtype: 'float16', maxMemory });
    expect(plan.size).toBe(352_494_542_848);
    expect(keysPerDevice(plan)).toEqual({ 0: 7, 1: 10, 2: 10, 3: 10, 4: 10, 5: 10, 6: 10, 7: 7 });
    const int8 = planPlacement({
      tree: models['bloom-176b']!,
      wiring,
      dtype: 'float16',
      quantization: { bits: 8 },
      maxMemory,
    });
    expect(keysPerDevice(int8)).toEqual({ 0: 8, 1: 9, 2: 9, 3: 9, 4: 9, 5: 9, 6: 9, 7: 12 });
  });

  it('bloom-1b7 with the map that keeps lm_head on the cpu', () => {
    const deviceMap = {
      'transformer.word_embeddings': 0,
      'transformer.word_embeddings_layernorm': 0,
      lm_head: 'cpu',
      'transformer.h': 0,
      'transformer.ln_f': 0,
    };
    const tree = models['bloom-1b7']!;
    const plan = planPlacement({
      tree,
      wiring,
      dtype: 'float16',
      quantization: { bits: 8, cpuOffload: true },
      deviceMap,
    });
    expect(plan.deviceMap).toEqual(deviceMap);
    expect(plan.notConverted).toContain('lm_head');
    expect(plan.messages).toEqual([
      {
        level: 'warning',
        code: 'tied_on_different_devices',
        devices: { 'lm_head.weight': 'cpu', 'transformer.word_embeddings.weight': 0 },
      },
    ]);
    expect(refused({ tree, wiring, dtype: 'float16', quantization: { bits: 8 }, deviceMap }).fields.rule).toBe(
      'quantized_offload',
    );
    expect(
      planPlacement({ tree, wiring, dtype: 'float16', quantization: { bits: 8 }, quantizedOffload: true, deviceMap })
        .deviceMap,
    ).toEqual(deviceMap);
  });
});

describe('block1 and block2.linear1 of the documents', () => {
  const linear = (path: string) =>
    [
      path,
      'Linear',
      [
        ['weight', [8, 8]],
        ['bias', [8]],
      ],
    ] as const;
  const block = (path: string) => [
    [path, 'Block'] as const,
    ...[1, 2, 3].map((index) => linear(`${path}.linear${index}`)),
  ];
  const tree = { modules: [['', 'ModelForTest'] as const, ...block('block1'), ...block('block2')] };

  it('takes a map of blocks, and one that splits a block', () => {
    expect(planPlacement({ tree, deviceMap: { block1: 0, block2: 1 } }).deviceOf('block2.linear1.weight')).toBe(1);
    const deviceMap = { block1: 0, 'block2.linear1': 0, 'block2.linear2': 1, 'block2.linear3': 1 };
    const plan = planPlacement({ tree, deviceMap });
    expect(plan.deviceOf('block2.linear1.bias')).toBe(0);
    expect(plan.deviceOf('block2.linear3.bias')).toBe(1);
    expect(plan.usage.map(({ device, weights, modules }) => ({ device, weights, modules }))).toEqual([
      { device: 0, weights: 4 * 288, modules: 2 },
      { device: 1, weights: 2 * 288, modules: 2 },
    ]);
  });

  it('lists what a map misses', () => {
    const deviceMap = { block1: 0, 'block2.linear1': 1, 'block2.linear2': 1 };
    expect(() => planPlacement({ tree, deviceMap })).toThrow(
      expect.objectContaining({
        code: 'placement',
        message: expect.stringContaining('add "block2.linear3" to the map'),
        fields: expect.objectContaining({
          rule: 'uncovered_parameters',
          uncovered: ['block2.linear3.weight', 'block2.linear3.bias'],
        }),
      }),
    );
  });
});
