import { expect, it } from 'vitest';
import { buildModel, parseModelConfig } from '../registry.js';

it('a module knows the path of its children in the whole model', () => {
  for (const model_type of ['llama', 'opt', 't5', 'bart', 'gpt2', 'bert'])
    for (const { path, module } of buildModel(parseModelConfig({ model_type }), 'base').walk())
      expect(module.pathOf('weight')).toBe(path === '' ? 'weight' : `${path}.weight`);
});
