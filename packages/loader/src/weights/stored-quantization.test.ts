import { describe, expect, it } from 'vitest';
import { BitsAndBytesConfig, CheckpointError, GPTQConfig } from '@q/config';
import type { StoredLayer } from '../formats/format.js';
import { decideQuantization } from './stored-quantization.js';

const layers = (format: StoredLayer['format'], { nested = false, dense = ['head'] } = {}): StoredLayer[] =>
  ['a.up', 'a.down', 'b.up', 'head'].map((module) =>
    dense.includes(module) ? { module, format: 'dense' } : { module, format, nested },
  );
const nf4 = new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'nf4', bnb4bitComputeDtype: 'bfloat16' });
const keepDense = ['head'];

describe('agreement', () => {
  it.each([
    ['nf4', layers('nf4'), nf4],
    ['int8', layers('int8'), new BitsAndBytesConfig({ loadIn8bit: true })],
    ['skipped modules', layers('nf4', { dense: ['a.up', 'head'] }), nf4.with({ llmInt8SkipModules: ['a.up', 'head'] })],
    ['dense', layers('dense'), undefined],
  ])('%s: nothing to say', (_, stored, stated) => {
    const { config, warnings } = decideQuantization({ layers: stored, stated, keepDense });
    expect(config).toBe(stated);
    expect(warnings).toEqual([]);
  });
});

describe('the tensors win', () => {
  it.each([
    ['nf4', nf4],
    ['int8', new BitsAndBytesConfig({ loadIn8bit: true })],
    ['gptq', new GPTQConfig({ bits: 4 })],
    ['flags that are all false', new BitsAndBytesConfig({})],
  ])('a left-over config over dense tensors: %s', (_, stated) => {
    const { config, warnings } = decideQuantization({ layers: layers('dense'), stated, keepDense });
    expect(config).toBeUndefined();
    expect(warnings).toEqual([expect.stringMatching(/no weight is quantized: the model counts as dense/)]);
  });

  it.each([
    ['nf4', { nested: true }, { loadIn4bit: true, bnb4bitQuantType: 'nf4', bnb4bitUseDoubleQuant: true }],
    ['fp4', {}, { loadIn4bit: true, bnb4bitQuantType: 'fp4', bnb4bitUseDoubleQuant: false }],
    ['int8', {}, { loadIn8bit: true, loadIn4bit: false }],
  ] as const)('%s tensors without a config', (format, options, wanted) => {
    for (const stated of [undefined, new BitsAndBytesConfig({})]) {
      const request = { layers: layers(format, options), stated, keepDense, dtype: 'bfloat16' } as const;
      const { config, warnings } = decideQuantization(request);
      expect(config).toMatchObject({ ...wanted, llmInt8SkipModules: null });
      if (format !== 'int8') expect(config).toMatchObject({ bnb4bitComputeDtype: 'bfloat16' });
      expect(warnings).toEqual([expect.stringContaining(`3 layers are stored as ${format}`)]);
    }
  });

  it('another 4-bit type, and double quantization', () => {
    const { config, warnings } = decideQuantization({
      layers: layers('fp4', { nested: true }),
      stated: nf4,
      keepDense,
    });
    expect(config).toMatchObject({
      bnb4bitQuantType: 'fp4',
      bnb4bitUseDoubleQuant: true,
      bnb4bitComputeDtype: 'bfloat16',
    });
    expect(warnings).toEqual([expect.stringMatching(/says nf4 without .*weights are fp4 with double/)]);
  });

  it('other layers are dense than the config says', () => {
    const { config, warnings } = decideQuantization({
      layers: layers('nf4', { dense: ['a.up'] }),
      stated: nf4,
      keepDense,
    });
    expect(config).toMatchObject({ llmInt8SkipModules: ['a.up'] });
    expect(warnings).toEqual([expect.stringMatching(/wrong about 2 layers.*a\.up is dense, head is nf4/)]);
  });
});

describe('nonsense', () => {
  it.each([
    ['int8 under a 4-bit config', layers('int8'), nf4, /says 4 bit, the weights have 8/],
    ['nf4 under an 8-bit config', layers('nf4'), new BitsAndBytesConfig({ loadIn8bit: true }), /says 8 bit/],
    ['nf4 under gptq', layers('nf4'), new GPTQConfig({ bits: 4 }), /says gptq, the weights are nf4/],
    ['two formats', [...layers('nf4'), ...layers('int8')], nf4, /quantized in two ways.*a\.up/],
  ])('%s is refused', (_, stored, stated, message) => {
    const decide = () => decideQuantization({ layers: stored, stated, keepDense });
    expect(decide).toThrow(CheckpointError);
    expect(decide).toThrow(message);
  });
});
