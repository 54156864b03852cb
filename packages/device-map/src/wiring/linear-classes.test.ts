import { expect, it } from 'vitest';
import type { ModuleTree } from '../tree.js';
import { planQuantization } from './transformers-5.js';

const tree: ModuleTree = {
  modules: [
    ['', 'Model'],
    ['a', 'Linear', [['weight', [4, 4]]]],
    ['b', 'FalconLinear', [['weight', [4, 4]]]],
    ['c', 'Embedding', [['weight', [4, 4]]]],
  ],
  keepDense: [],
};

it('quantizes linears of the classes that the tree names, by default Linear and Conv1D', () => {
  expect(planQuantization(tree, { bits: 4 }).converted).toEqual(['a']);
  const named = { ...tree, linearClasses: ['Linear', 'FalconLinear'] };
  expect(planQuantization(named, { bits: 4 }).converted).toEqual(['a', 'b']);
});
