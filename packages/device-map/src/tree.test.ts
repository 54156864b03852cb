import { describe, expect, it } from 'vitest';
import { ConfigError } from '@q/config';
import {
  type ModuleTree,
  computeModuleSizes,
  dtypeBytes,
  getBalancedMemory,
  getMaxLayerSize,
  inferAutoDeviceMap,
  readTree,
} from './index.js';

const tree: ModuleTree = {
  modules: [
    ['', 'Model', [['scale', [1]]]],
    ['embed', 'Embedding', [['weight', [16, 8]]]],
    ['h', 'ModuleList'],
    ['h.0', 'Block', [], [['mask', [4, 4], 'bool', true]]],
    [
      'h.0.fc',
      'Linear',
      [
        ['weight', [8, 8]],
        ['bias', [8]],
      ],
    ],
    ['head', 'Linear', [['weight', [16, 8]]]],
  ],
  noSplit: ['Block'],
  tied: [['head.weight', 'embed.weight']],
};

describe('readTree', () => {
  it.each<[string, ModuleTree]>([
    ['no root', { modules: [['a', 'Linear']] }],
    [
      'an orphan',
      {
        modules: [
          ['', 'Model'],
          ['a.b', 'Linear'],
        ],
      },
    ],
    [
      'a module twice',
      {
        modules: [
          ['', 'Model'],
          ['a', 'Linear'],
          ['a', 'Linear'],
        ],
      },
    ],
    [
      'a tensor twice',
      {
        modules: [
          [
            '',
            'Model',
            [
              ['w', [1]],
              ['w', [1]],
            ],
          ],
        ],
      },
    ],
    ['a negative shape', { modules: [['', 'Model', [['w', [-1]]]]] }],
    ['a tie to nothing', { ...tree, tied: [['embed.weight', 'tail.weight']] }],
  ])('refuses %s', (_, wrong) => expect(() => readTree(wrong)).toThrow(ConfigError));

  it('makes targets of ties from groups, the first in order being the source', () => {
    expect([...readTree(tree).tiedWeights]).toEqual([['head.weight', 'embed.weight']]);
  });

  it('takes a linked tree as it is', () => {
    const linked = readTree(tree);
    expect(readTree(linked)).toBe(linked);
  });
});

describe('sizes', () => {
  it('count a tied tensor once, under the first name', () => {
    const sizes = computeModuleSizes(tree, { dtype: 'float16' });
    expect(sizes).toEqual({
      '': 2 + 256 + 2 + 128 + 16,
      scale: 2,
      embed: 256,
      'embed.weight': 256,
      h: 146,
      'h.0': 146,
      'h.0.mask': 2,
      'h.0.fc': 144,
      'h.0.fc.weight': 128,
      'h.0.fc.bias': 16,
    });
    expect(getMaxLayerSize(tree, sizes)).toEqual({ size: 256, names: ['embed'] });
  });

  it('count a bool as one byte where Q stores it', () =>
    expect(computeModuleSizes(tree, { wiring: 'q', dtype: 'float16' })['h.0.mask']).toBe(16));

  it('of a model without tensors are 0', () =>
    expect(computeModuleSizes({ modules: [['', 'Empty']] })).toEqual({ '': 0 }));

  it('refuse unknown dtypes', () =>
    expect(() => dtypeBytes('weird')).toThrow(expect.objectContaining({ code: 'dtype' })));
});

describe('accelerate, function by function', () => {
  it('balances, then fills', () => {
    const { budgets } = getBalancedMemory(tree, { maxMemory: { 0: 2000, 1: 2000 } });
    // 806 / 2 + 1.25 x the mean of embed (512) and h.0.fc (288)
    expect(budgets).toEqual([
      [0, 903],
      [1, 2000],
    ]);
    const { deviceMap, steps } = inferAutoDeviceMap(tree, { maxMemory: { 0: 805, 1: 2000 } });
    // scale and embed take 516 of GPU 0, where 290 stay free for the block
    expect(deviceMap).toEqual({ scale: 0, embed: 1, head: 1, h: 1 });
    expect(steps.at(-1)).toMatchObject({ module: 'h', device: 1, outcome: 'placed' });
  });

  it('uses what the devices report when no budgets are given', () => {
    const { budgets, messages } = getBalancedMemory(tree, {
      devices: [
        [3, 1000],
        ['cpu', 5000],
      ],
    });
    expect(budgets).toEqual([
      [3, 900],
      ['cpu', 5000],
    ]);
    expect(messages).toEqual([{ level: 'info', code: 'ninety_percent', device: 3 }]);
  });
});
