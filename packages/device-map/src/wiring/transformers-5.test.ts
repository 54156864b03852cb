import { describe, expect, it } from 'vitest';
import type { ModuleEntry } from '../tree.js';
import { convertedBytes, planQuantization } from './transformers-5.js';

const linear = (path: string): ModuleEntry => [path, 'Linear', [['weight', [4, 4]]]];
const tree = {
  modules: [['', 'Model'], linear('a'), linear('b'), linear('head')] as ModuleEntry[],
  outputEmbeddings: 'head',
};

describe('modules that stay dense', () => {
  it.each([
    ['as in Python', {}, null, ['head']],
    ['what the tree says', { keepDense: ['a'] }, null, ['a']],
    ['what the config names, whatever the tree says', { keepDense: ['a'] }, ['b'], ['b']],
    ['none', { keepDense: [] }, null, []],
  ])('%s', (_, more, skipModules, kept) => {
    const conversion = planQuantization({ ...tree, ...more }, { bits: 4, skipModules });
    expect(conversion.notConverted).toEqual(kept);
    expect(conversion.linearsKept).toEqual(kept);
    expect([...convertedBytes(conversion, { bits: 3 }).values()]).toEqual(Array(3 - kept.length).fill(3 / 8));
  });
});
