import { describe, expect, it } from 'vitest';
import {
  type ModuleEntry,
  type Message,
  type ModuleTree,
  type PlanRequest,
  PlanRefusedError,
  describeMessage,
  planPlacement,
  renderBars,
} from './index.js';

/** Blocks of 400 bytes (two linears of 5 x 5 x 2 x 4), an embedding of 400, a head of 400 bytes. */
const model = (blocks: number, more: Partial<ModuleTree> = {}): ModuleTree => {
  const linear = (path: string, rows = 10): ModuleEntry => [path, 'Linear', [['weight', [rows, 5]]]];
  const modules: ModuleEntry[] = [['', 'Model'], linear('embed', 20), ['h', 'ModuleList']];
  for (let index = 0; index < blocks; index++)
    modules.push([`h.${index}`, 'Block'], linear(`h.${index}.fc1`), linear(`h.${index}.fc2`));
  modules.push(linear('head', 20));
  return { modules, noSplit: ['Block'], outputEmbeddings: 'head', ...more };
};

const layers = (blocks: number): string[] => Array.from({ length: blocks }, (_, index) => `h.${index}`);

const refusal = (request: PlanRequest): PlanRefusedError => {
  try {
    planPlacement(request);
  } catch (error) {
    if (error instanceof PlanRefusedError) return error;
    throw error;
  }
  throw new Error('the plan was not refused');
};

describe('strategies', () => {
  const tree = model(6);
  const maxMemory = { 0: 4000, 1: 4000, cpu: 4000 };

  it('sequential fills one GPU after another', () => {
    expect(planPlacement({ tree, deviceMap: 'sequential', maxMemory }).deviceMap).toEqual({ '': 0 });
  });

  it('auto and balanced spread', () => {
    const plan = planPlacement({ tree, deviceMap: 'auto', maxMemory });
    expect(plan.usage.map(({ weights }) => weights)).toEqual([1600, 1600, 0]);
    expect(planPlacement({ tree, deviceMap: 'balanced', maxMemory }).deviceMap).toEqual(plan.deviceMap);
  });

  it('balanced_low_0 leaves GPU 0 to other work, with any ids', () => {
    for (const ids of [
      [0, 1, 2],
      [0, 2, 5],
      [3, 4, 9],
    ] as const) {
      const plan = planPlacement({
        tree,
        deviceMap: 'balanced_low_0',
        maxMemory: ids.map((id) => [id, 4000] as const),
      });
      expect(plan.usage.map(({ device, weights }) => [device, weights])).toEqual([
        [ids[0], 0],
        [ids[1], 2000],
        [ids[2], 1200],
      ]);
    }
  });

  it.each<[string, Record<number | string, number>, [number | string, number][]]>([
    [
      'a GPU without a budget between',
      { 0: 4000, 1: 0, 2: 4000 },
      [
        [0, 0],
        [1, 0],
        [2, 3200],
      ],
    ],
    [
      'two GPUs without a budget',
      { 0: 4000, 1: 0, 2: 0, 3: 4000 },
      [
        [0, 0],
        [1, 0],
        [2, 0],
        [3, 3200],
      ],
    ],
    [
      'GPU 0 itself without a budget',
      { 0: 0, 1: 4000, 2: 4000 },
      [
        [0, 0],
        [1, 2000],
        [2, 1200],
      ],
    ],
    [
      'no other GPU with a budget',
      { 0: 4000, 1: 0 },
      [
        [0, 3200],
        [1, 0],
      ],
    ],
  ])('balanced_low_0 with %s', (_, maxMemory, weights) => {
    const plan = planPlacement({ tree, deviceMap: 'balanced_low_0', maxMemory });
    expect(plan.usage.map((row) => [row.device, row.weights])).toEqual(weights);
  });

  it('balanced_low_0 fills GPU 0 last: it gets what small others cannot hold', () => {
    for (const small of [900, 1300, 2000, 2500]) {
      const plan = planPlacement({ tree, deviceMap: 'balanced_low_0', maxMemory: { 0: 4000, 1: small, cpu: 9000 } });
      const weights = new Map(plan.usage.map((row) => [row.device, row.weights]));
      expect(weights.get('cpu')).toBe(0);
      // The others are full up to one layer.
      expect(weights.get(1)).toBeGreaterThan(small - 2 * plan.largestLayer);
      expect(weights.get(0)).toBe(3200 - weights.get(1)!);
    }
  });

  it('a device for everything, as a string, as a CUDA name or as an id', () => {
    expect(planPlacement({ tree, deviceMap: 'cpu' }).deviceMap).toEqual({ '': 'cpu' });
    expect(planPlacement({ tree, deviceMap: 'cuda:2' }).deviceMap).toEqual({ '': 2 });
    expect(planPlacement({ tree, deviceMap: 'cuda', localRank: 1 }).deviceMap).toEqual({ '': 1 });
    expect(planPlacement({ tree, deviceMap: 3 }).usage).toMatchObject([{ device: 3, budget: Infinity, weights: 3200 }]);
  });

  it('gives up even shares when they would send more to the cpu', () => {
    const plan = planPlacement({ tree, maxMemory: { 0: 4000, 1: 1, cpu: 9000 } });
    expect(plan.deviceMap).toEqual({ '': 0 });
    expect(plan.messages).toContainEqual({ level: 'info', code: 'balance_given_up', bytes: 1600 });
    const python = planPlacement({ tree, wiring: 'transformers-5', maxMemory: { 0: 4000, 1: 1, cpu: 9000 } });
    expect(python.usage.at(-1)).toMatchObject({ device: 'cpu', weights: 1600 });
  });

  it('plans with what the devices report, keeping a tenth of a lone GPU free', () => {
    const plan = planPlacement({
      tree,
      devices: [
        [0, 3300],
        ['cpu', 10_000],
      ],
    });
    expect(plan.adjusted).toEqual([
      [0, 2970],
      ['cpu', 9000],
    ]);
    expect(plan.messages).toContainEqual({ level: 'info', code: 'ninety_percent', device: 0 });
    expect(plan.usage[0]!.weights).toBeLessThanOrEqual(2970);
  });
});

describe('errors', () => {
  const tree = model(2);

  it.each<[string, PlanRequest, string]>([
    ['a device that is none', { tree, maxMemory: { gpu: 1 } }, 'unrecognized_device'],
    ['a size that is none', { tree, maxMemory: { 0: '8 gigs' } }, 'invalid_size'],
    ['a negative budget', { tree, maxMemory: { 0: -1 } }, 'invalid_size'],
    ['no budgets and no devices', { tree }, 'no_devices'],
    ['a strategy that is none', { tree, deviceMap: 'Auto' }, 'invalid_device_map'],
    ['a negative GPU', { tree, deviceMap: -1 }, 'negative_device'],
    ['a device of a map that Q does not know', { tree, deviceMap: { '': 'xpu:1' } }, 'unrecognized_device'],
    ['a map with holes', { tree, deviceMap: { embed: 0, h: 0 } }, 'uncovered_parameters'],
  ])('%s', (_, request, rule) => {
    expect(() => planPlacement(request)).toThrow(
      expect.objectContaining({ fields: expect.objectContaining({ rule }) }),
    );
  });

  it.each<[string, object]>([
    ['unknown options', { maxmemory: { 0: 1 } }],
    ['options the wiring ignores', { maxMemory: { 0: 1 }, specialDtypes: { 'head.weight': 'float32' } }],
    ['quantization with accelerate', { maxMemory: { 0: 1 }, wiring: 'accelerate', quantization: { bits: 8 } }],
    ['two dtypes', { maxMemory: { 0: 1 }, dtype: 'float16', modelDtype: 'float32' }],
    ['a headroom above 1', { maxMemory: { 0: 1 }, headroom: 1.1 }],
    ['exact bytes of nothing', { maxMemory: { 0: 1 }, tensorBytes: { nothing: 1 } }],
    ['an unknown wiring', { maxMemory: { 0: 1 }, wiring: 'q2' }],
  ])('%s', (_, options) => {
    expect(() => planPlacement({ tree, ...options } as PlanRequest)).toThrow(
      expect.objectContaining({ code: 'config' }),
    );
  });

  it('a map that exceeds a budget, with the plan', () => {
    const error = refusal({ tree, deviceMap: { embed: 0, h: 0, head: 'cpu' }, maxMemory: { 0: 1000, cpu: 1000 } });
    expect(error.fields).toMatchObject({ rule: 'budget_exceeded', device: 0, weights: 1200, budget: 1000 });
    expect(error.plan.usage[0]!.free).toBe(-200);
    expect(error.message).toMatch(
      /^\[planPlacement\] a device would hold more than its budget \(rule budget_exceeded, device 0/,
    );
  });

  it('a disk that has too little room', () => {
    expect(refusal({ tree, maxMemory: { 0: 500, disk: 100 } }).fields).toMatchObject({
      rule: 'budget_exceeded',
      device: 'disk',
    });
    expect(planPlacement({ tree, wiring: 'transformers-5', maxMemory: { 0: 500, disk: 100 } }).deviceOf('head')).toBe(
      'disk',
    );
  });

  it('a GPU that is not there, when the devices are known', () => {
    const devices = [
      [0, 5000],
      [1, null],
      ['cpu', 5000],
    ] as const;
    expect(refusal({ tree, deviceMap: 2, devices }).fields).toMatchObject({
      rule: 'device_unavailable',
      device: 2,
      available: [0],
    });
    expect(refusal({ tree, deviceMap: 1, devices }).fields.rule).toBe('device_unavailable');
    expect(refusal({ tree, maxMemory: { 3: 5000 }, devices }).plan.messages).toContainEqual({
      level: 'warning',
      code: 'device_unavailable',
      device: 3,
      available: [0, 1],
    });
    expect(planPlacement({ tree, wiring: 'transformers-5', maxMemory: { 3: 5000 }, devices }).deviceMap).toEqual({
      '': 3,
    });
    expect(planPlacement({ tree, maxMemory: { 3: 5000 } }).deviceMap).toEqual({ '': 3 });
  });

  it('a skip pattern that is no regular expression', () => {
    const quantization = { bits: 8, skipModules: ['h.('] } as const;
    expect(() => planPlacement({ tree, quantization, maxMemory: { 0: 1 } })).toThrow(
      expect.objectContaining({ code: 'config' }),
    );
  });
});

describe('quantization', () => {
  const tree = model(4);

  it('counts converted weights, keeps the head, and plans with 90 % of the budgets', () => {
    const plan = planPlacement({ tree, dtype: 'float16', quantization: { bits: 4 }, maxMemory: { 0: 10_000 } });
    expect(plan.notConverted).toEqual(['head']);
    expect(plan.converted).toContain('h.3.fc2');
    expect(plan.size).toBe(50 + 4 * 50 + 200);
    expect(plan.adjusted).toEqual([[0, 9000]]);
    expect(planPlacement({ tree, quantization: { bits: 4 }, headroom: 1, maxMemory: { 0: 10_000 } }).adjusted).toEqual([
      [0, 10_000],
    ]);
  });

  it('takes exact sizes of quantized weights, scales included', () => {
    const tensorBytes = { 'h.0.fc1.weight': 33, 'h.0.fc2.weight': 34 };
    const plan = planPlacement({
      tree,
      dtype: 'float16',
      quantization: { bits: 4 },
      tensorBytes,
      maxMemory: { 0: 10_000 },
    });
    expect(plan.size).toBe(50 + 67 + 3 * 50 + 200);
    expect(plan.usage[0]!.weights).toBe(plan.size);
  });

  it('leaves modules that an fp32 offload puts on the cpu as they are', () => {
    const deviceMap = { embed: 0, 'h.0': 0, 'h.1': 0, 'h.2': 'cpu', 'h.3': 'cpu', head: 0 };
    const plan = planPlacement({ tree, dtype: 'float16', quantization: { bits: 8, cpuOffload: true }, deviceMap });
    expect(plan.notConverted).toEqual(['h.2', 'h.3', 'head']);
    expect(plan.usage.map(({ weights }) => weights)).toEqual([100 + 200 + 200, 400]);
    const lifted = planPlacement({
      tree,
      dtype: 'float16',
      quantization: { bits: 8 },
      quantizedOffload: true,
      deviceMap,
    });
    expect(lifted.usage.map(({ weights }) => weights)).toEqual([100 + 200 + 200, 200]);
  });
});

describe('reserve', () => {
  const tree = model(4);
  const bytesPerToken = 20; // keys and values of one head of 5 elements in float16
  const kvCache = { layers: layers(4), bytesPerToken, context: 9, batch: 2 };

  it('places caches with their layers, in whole pages', () => {
    const plan = planPlacement({
      tree,
      deviceMap: 'sequential',
      maxMemory: { 0: 2500, cpu: 9000 },
      reserve: { kvCache },
    });
    expect(plan.size).toBe(2400 + 4 * 360);
    expect(plan.usage).toMatchObject([
      { device: 0, weights: 800, kvCache: 360 },
      { device: 'cpu', weights: 1600, kvCache: 1080 },
    ]);
    const paged = planPlacement({ tree, deviceMap: 0, reserve: { kvCache: { ...kvCache, pageTokens: 16 } } });
    expect(paged.usage[0]).toMatchObject({ kvCache: 4 * 16 * 2 * 20 });
  });

  it('takes per-layer sizes', () => {
    const plan = planPlacement({
      tree,
      deviceMap: 0,
      reserve: { kvCache: { ...kvCache, bytesPerToken: [1, 2, 3, 4] } },
    });
    expect(plan.usage[0]!.kvCache).toBe(180);
  });

  it('adds what a sequence takes whatever its length', () => {
    const cacheOf = (bytesPerSequence: number | number[], more: object = {}) =>
      planPlacement({ tree, deviceMap: 0, reserve: { kvCache: { ...kvCache, ...more, bytesPerSequence } } }).usage[0]!
        .kvCache;
    expect(cacheOf(7)).toBe(1440 + 4 * 2 * 7);
    expect(cacheOf([0, 5, 0, 6], { bytesPerToken: [20, 0, 20, 0], context: 18 })).toBe(1440 + 2 * (5 + 6));
  });

  it('keeps caches of layers on disk in host memory, and never exceeds it', () => {
    const plan = planPlacement({ tree, maxMemory: { cpu: 2500 }, reserve: { kvCache } });
    const [cpu, disk] = plan.usage;
    expect(cpu).toMatchObject({ device: 'cpu', kvCache: 1440 });
    expect(disk).toMatchObject({ device: 'disk', kvCache: 0 });
    expect(cpu!.free).toBeGreaterThanOrEqual(0);
    expect(refusal({ tree, maxMemory: { cpu: 1400 }, reserve: { kvCache } }).fields).toMatchObject({
      rule: 'budget_exceeded',
      device: 'cpu',
      kvCache: 1440,
    });
  });

  it('takes contexts and work buffers off the GPUs that are used', () => {
    const reserve = {
      deviceContext: 100,
      workBuffers: [
        [0, 50],
        ['cpu', 25],
      ] as const,
    };
    const plan = planPlacement({
      tree,
      deviceMap: 'sequential',
      maxMemory: { 0: 1500, 1: 5000, 2: 5000, cpu: 9 },
      reserve,
    });
    expect(plan.maxMemory).toEqual([
      [0, 1350],
      [1, 4900],
      [2, 4900],
      ['cpu', 0],
    ]);
    expect(plan.usage.map(({ reserved }) => reserved)).toEqual([150, 100, 0, 0]);
    expect(planPlacement({ tree, maxMemory: { 0: 9000, cpu: 9 }, reserve: { workBuffers: '1KB' } }).maxMemory).toEqual([
      [0, 8000],
      ['cpu', 9],
    ]);
  });

  it.each([
    { ...kvCache, layers: ['h.9'] },
    { ...kvCache, layers: ['h', 'h.1'] },
    { ...kvCache, layers: ['h.1', 'h.1'] },
    { ...kvCache, context: 0 },
    { ...kvCache, batch: 1.5 },
    { ...kvCache, bytesPerToken: [1] },
    { ...kvCache, bytesPerSequence: [1] },
    { ...kvCache, bytesPerSequence: -1 },
  ])('refuses caches that cannot be', (wrong) => {
    expect(() => planPlacement({ tree, deviceMap: 0, reserve: { kvCache: wrong } })).toThrow(
      expect.objectContaining({ code: 'config' }),
    );
  });
});

describe('what Python misses', () => {
  it('a split module keeps its own buffers', () => {
    const modules: ModuleEntry[] = [
      ['', 'Model'],
      ['a', 'Part', [], [['table', [10], null, true]]],
      ['a.fc1', 'Linear', [['weight', [10, 10]]]],
      ...['a.fc2', 'a.fc3'].map((path): ModuleEntry => [path, 'Linear', [['weight', [10, 10]]]]),
    ];
    const request: PlanRequest = { tree: { modules }, maxMemory: { 0: 900, cpu: 9000 } };
    expect(planPlacement(request).deviceMap).toEqual({ 'a.table': 0, 'a.fc1': 0, 'a.fc2': 'cpu', 'a.fc3': 'cpu' });
    expect(planPlacement({ ...request, wiring: 'transformers-5' }).deviceOf('a.table')).toBeUndefined();
  });

  it('a chain of ties shares a device', () => {
    const linear = (path: string): ModuleEntry => [
      path,
      'Linear',
      [
        ['weight', [5, 5]],
        ['bias', [5]],
      ],
    ];
    const tied = [
      ['a.weight', 'b.weight'],
      ['b.bias', 'c.bias'],
      ['c.weight', 'd.weight'],
    ];
    const tree = {
      modules: [
        ['', 'Model'],
        linear('a'),
        linear('x'),
        linear('y'),
        linear('b'),
        linear('c'),
        linear('d'),
      ] as ModuleEntry[],
      tied,
    };
    const plan = planPlacement({ tree, deviceMap: 'sequential', maxMemory: { 0: 400, cpu: 5000 } });
    expect(plan.deviceMap).toEqual({ a: 0, b: 0, c: 0, d: 0, x: 'cpu', y: 'cpu' });
  });
});

describe('explanations', () => {
  const plan = planPlacement({
    tree: model(4, { tied: [['embed.weight', 'head.weight']] }),
    deviceMap: 'sequential',
    maxMemory: { 0: 1300, 1: 500, cpu: 9000 },
  });

  it('tell budgets before and after, and what did not fit', () => {
    const { placements } = plan.explain();
    expect(placements.map(({ module, device, before, after }) => [module, device, before, after])).toEqual([
      ['embed', 0, 1300, 900],
      ['head', 0, 1300, 900],
      ['h.0', 0, 900, 500],
      ['h.1', 1, 500, 100],
      ['h.2', 'cpu', 9000, 8600],
      ['h.3', 'cpu', 8600, 8200],
    ]);
    expect(placements[1]).toMatchObject({ because: 'tied', with: 'embed' });
    expect(placements[3]!.rejected).toEqual([
      { device: 0, module: 'h', needed: 1600, available: 900, reserved: 0, then: 'split' },
      { device: 0, module: 'h.1', needed: 400, available: 100, reserved: 400, then: 'next device' },
    ]);
  });

  it('read as a table', () => {
    expect(plan.explain().table.split('\n')).toEqual([
      'module   size  device  budget left before    after  why',
      expect.stringMatching(/^[- ]+$/),
      expect.stringMatching(/^embed {3}400 B {2}GPU 0 {14}1\.30 KB {4}900 B {2}fits/),
      expect.stringMatching(/^head {6}0 B {2}GPU 0 .* shares a tensor with embed$/),
      expect.stringMatching(/^h\.0 /),
      expect.stringContaining('h.1 needs 400 B, GPU 0 had 100 B'),
      expect.stringContaining('h.2 needs 400 B, GPU 1 had 100 B'),
      expect.stringMatching(/^h\.3 .* cpu .* fits/),
    ]);
  });

  it('say that a map was given', () => {
    const { placements, table } = planPlacement({ tree: model(1), deviceMap: { embed: 0, h: 1, head: 1 } }).explain();
    expect(placements.every(({ because, before }) => because === 'given' && before === null)).toBe(true);
    expect(table).toContain('the given map says so');
  });

  it('draw a bar per device', () => {
    expect(renderBars(plan, { width: 50, ascii: true }).split('\n')).toEqual([
      'GPU 0 [###############..........] 800 B of 1.30 KB',
      'GPU 1 [####################.....] 400 B of 500 B',
      'cpu   [##.......................] 800 B of 9.00 KB',
      '# weights  + KV cache  = reserved  . free',
    ]);
    const full = planPlacement({ tree: model(2), deviceMap: 0, reserve: { deviceContext: 800 } });
    expect(renderBars(full, { width: 10 }).split('\n')[0]).toBe(
      'GPU 0 [████████████████░░░░░░░░] 2.40 KB'.replace('░░░░░░░░', '▒▒▒▒▒▒▒▒'),
    );
  });

  it('describe every message', () => {
    const messages: Message[] = [
      ...planPlacement({ tree: model(6), maxMemory: { 0: 4000, 1: 1, cpu: 9000 }, devices: [[0, 4000]] }).messages,
      { level: 'warning', code: 'unknown_keys', keys: ['x'] },
      { level: 'info', code: 'device_skipped', device: 1 },
      { level: 'warning', code: 'weights_not_tied' },
      { level: 'info', code: 'insufficient_memory', required: [[0, 10]] },
      { level: 'warning', code: 'offload_buffers', bytes: 10 },
      { level: 'info', code: 'ninety_percent', device: 0 },
      { level: 'warning', code: 'tied_on_different_devices', devices: { a: 0, b: 'cpu' } },
    ];
    const sentences = messages.map(describeMessage);
    expect(sentences).toHaveLength(9);
    expect(sentences.every((sentence) => sentence.endsWith('.'))).toBe(true);
  });
});

it('takes time by the layers, not by their square, also on several devices', { timeout: 40_000 }, () => {
  const blocks = 12_000; // by the square: minutes
  const plan = planPlacement({
    tree: model(blocks),
    deviceMap: 'sequential',
    maxMemory: { 0: 200 * blocks, 1: 150 * blocks, cpu: 400 * blocks },
    reserve: { kvCache: { layers: layers(blocks), bytesPerToken: 1, context: 1, batch: 1 } },
  });
  expect(new Set(Object.values(plan.deviceMap)).size).toBeGreaterThan(1);
});
