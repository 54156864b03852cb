import { BitsAndBytesConfig, ConfigError, UnsupportedError } from '@q/config';
import { planQuantization } from '@q/device-map';
import { plannedQuantization, quantizerFor } from '@q/loader';
import { architectureOf, buildModel, parameterSlots, parseModelConfig, planTree, type ModelConfig } from '@q/models';
import { describe, expect, test, vi } from 'vitest';
import type * as device from './device.js';
import { planFor } from './planning.js';
import { quantizationFor } from './quantization.js';

const freeMemory = vi.hoisted(() => vi.fn());
vi.mock('./device.js', async (original) => ({
  ...(await original<typeof device>()),
  freeMemory,
  listDevices: () => [
    { type: 'cpu', devices: [], problem: 'the addon is not built' },
    { type: 'cuda', devices: [] },
  ],
}));

const sizes = {
  model_type: 'llama',
  vocab_size: 256,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  hidden_act: 'silu',
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  torch_dtype: 'bfloat16',
};
const parse = (changes: object = {}): ModelConfig => parseModelConfig({ ...sizes, ...changes });
const stored = (options: object): ModelConfig =>
  parse({ quantization_config: new BitsAndBytesConfig(options).toJSON() });
const nf4 = () => stored({ loadIn4bit: true, bnb4bitQuantType: 'nf4' });
const linears = 4 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128);

describe('what options and checkpoint say about quantization', () => {
  test('the same, or only the bits: the checkpoint as it is, with a line', () => {
    for (const config of [nf4(), stored({ loadIn4bit: true, bnb4bitQuantType: 'fp4', bnb4bitUseDoubleQuant: true })]) {
      for (const options of [
        { loadIn4bit: true },
        { quantizationConfig: new BitsAndBytesConfig({ loadIn4bit: true }) },
        { quantizationConfig: new BitsAndBytesConfig({ loadIn4bit: true }).withDefaults({ bnb4bitQuantType: 'nf4' }) },
        { quantizationConfig: config.quantizationConfig! },
      ]) {
        const decided = quantizationFor(config, options);
        expect(decided.stored).toBe(config.quantizationConfig);
        expect(decided.wanted).toBeUndefined();
        expect(decided.warnings).toHaveLength(1);
      }
      expect(quantizationFor(config, {})).toEqual({ stored: config.quantizationConfig, warnings: [] });
    }
    const int8 = stored({ loadIn8bit: true });
    expect(quantizationFor(int8, { loadIn8bit: true }).warnings[0]).toMatch(/quantized already \(llm_int8\)/);
  });

  test('settings of how to compute are applied', () => {
    const quantizationConfig = new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitComputeDtype: 'bfloat16' });
    const decided = quantizationFor(nf4(), { quantizationConfig });
    expect(decided.stored).toMatchObject({ bnb4bitQuantType: 'nf4', bnb4bitComputeDtype: 'bfloat16' });
    expect(decided.warnings[0]).toMatch(/with bnb4bitComputeDtype as given/);
    const threshold = new BitsAndBytesConfig({ llmInt8Threshold: 3 });
    expect(quantizationFor(stored({ loadIn8bit: true }), { quantizationConfig: threshold }).stored).toMatchObject({
      loadIn8bit: true,
      llmInt8Threshold: 3,
    });
  });

  test('contradictions', () => {
    const refused = (config: ModelConfig, quantizationConfig: BitsAndBytesConfig, message: RegExp) => {
      expect(() => quantizationFor(config, { quantizationConfig })).toThrow(ConfigError);
      expect(() => quantizationFor(config, { quantizationConfig })).toThrow(message);
    };
    refused(nf4(), new BitsAndBytesConfig({ loadIn8bit: true }), /quantized already, with nf4 \(asked 8 bit\)/);
    refused(stored({ loadIn8bit: true }), new BitsAndBytesConfig({ loadIn4bit: true }), /asked 4 bit/);
    refused(nf4(), new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'fp4' }), /bnb4bitQuantType "fp4"/);
    refused(nf4(), new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitUseDoubleQuant: true }), /bnb4bitUseDoubleQuant/);
    expect(() => quantizationFor(nf4(), { loadIn8bit: true })).toThrow(/asked 8 bit/);
    const gptq = parse({ quantization_config: { quant_method: 'gptq', bits: 4 } });
    expect(() => quantizationFor(gptq, {})).toThrow(UnsupportedError);
    expect(() => quantizationFor(gptq, {})).toThrow(/quantized by GPTQ cannot be loaded yet/);
  });
});

describe('planFor', () => {
  const onGpu = { maxMemory: { 0: '1GiB' } };

  test("sizes are those of the checkpoint's own quantization, or of the options", async () => {
    const dense = await planFor(parse(), onGpu);
    const four = await planFor(nf4(), onGpu);
    expect(dense.size - four.size).toBe(linears * 1.5);
    expect((await planFor(parse(), { ...onGpu, loadIn4bit: true })).size).toBe(four.size);
    expect(dense.size - (await planFor(stored({ loadIn8bit: true }), onGpu)).size).toBe(linears);
    const skip = stored({ loadIn4bit: true, llmInt8SkipModules: ['lm_head', '.*down_proj'] });
    expect((await planFor(skip, onGpu)).size - four.size).toBe(4 * 64 * 128 * 1.5);
  });

  test('a pattern that skips nothing is a warning', async () => {
    const quantizationConfig = new BitsAndBytesConfig({ loadIn4bit: true, llmInt8SkipModules: ['mlp', 'lm_head'] });
    const { messages } = await planFor(parse(), { ...onGpu, quantizationConfig });
    expect(messages).toContainEqual({ level: 'warning', code: 'skip_without_effect', patterns: ['mlp'] });
  });

  test('the cache has the dtype of the device that a layer is on', async () => {
    const cacheOf = async (options: object) =>
      (await planFor(parse(), { context: 64, ...options })).usage.reduce((sum, row) => sum + row.kvCache, 0);
    const elements = 4 * 64 * 2 * 2 * 16;
    expect(await cacheOf(onGpu)).toBe(elements * 2);
    expect(await cacheOf({ maxMemory: { cpu: '1GiB' } })).toBe(elements * 4);
    expect(await cacheOf({ ...onGpu, torchDtype: 'float32' })).toBe(elements * 4);
    expect(await cacheOf({ maxMemory: { cpu: '1GiB' }, kvDtype: 'f16' })).toBe(elements * 2);
    const map = { 'model.layers.0': 'cpu', 'model.layers.1': 'cpu', model: 0, lm_head: 0 };
    expect(await cacheOf({ maxMemory: { 0: '1GiB', cpu: '1GiB' }, deviceMap: map })).toBe((elements * (4 + 2)) / 2);
  });

  test('contexts end where the model ends, and options have names', async () => {
    const yarn = { rope_scaling: { type: 'yarn', factor: 4, original_max_position_embeddings: 512 } };
    await expect(planFor(parse(), { ...onGpu, context: 513 })).rejects.toThrow(/context is 513; the model reaches 512/);
    await expect(planFor(parse(yarn), { ...onGpu, context: 2048 })).resolves.toBeDefined();
    await expect(planFor(parse(yarn), { ...onGpu, context: 2049 })).rejects.toThrow(/reaches 2048/);
    for (const odd of [{ contxt: 3 }, { batch: 0 }, { context: 1.5 }, { kvDtype: 'float16' }, { torchDtype: 'int8' }])
      await expect(planFor(parse(), { ...onGpu, ...odd } as never)).rejects.toThrow(ConfigError);
    await expect(planFor({} as never, onGpu)).rejects.toThrow(/the config is/);
  });

  test('without any device it says so', async () => {
    freeMemory.mockResolvedValue([]);
    await expect(planFor(parse())).rejects.toThrow(
      /this machine has no device to plan for; cpu: the addon is not built; cuda: none; give maxMemory/,
    );
    freeMemory.mockResolvedValue([['cpu', 1e9]]);
    expect((await planFor(parse())).deviceMap).toEqual({ '': 'cpu' });
  });
});

describe('planner and loader', () => {
  test.each([
    ['the list of the model', { loadIn4bit: true }, {}],
    ['the list of a tied model', { loadIn8bit: true }, { tie_word_embeddings: true }],
    ['no module at all', { loadIn8bit: true, llmInt8SkipModules: [] }, {}],
    [
      'names and patterns',
      { loadIn4bit: true, llmInt8SkipModules: ['k_proj', 'model.layers.[01]\\.mlp', 'nothing'] },
      {},
    ],
  ])('keep the same modules dense: %s', (_, options, changes) => {
    const config = parse(changes);
    const bnb = new BitsAndBytesConfig(options);
    const { tied, keepDense } = architectureOf(config.modelType);
    const quantizer = quantizerFor(bnb, keepDense);
    const slots = parameterSlots(buildModel(config, 'causalLM'), config.tieWordEmbeddings ? tied : {});
    const quantized = slots.filter((slot) => slot.kind === 'linear' && slot.tiedTo === undefined && quantizer(slot));
    const { converted } = planQuantization(planTree(config), plannedQuantization(bnb)!);
    expect(converted).toEqual(quantized.map(({ name }) => name.replace(/\.weight$/, '')));
    expect(converted.length).toBeGreaterThan(0);
  });

  test('count a value as the format says', () => {
    const planned = (options: object) => plannedQuantization(new BitsAndBytesConfig(options));
    expect(planned({ loadIn4bit: true, llmInt8SkipModules: ['a'] })).toEqual({
      bits: 4,
      skipModules: ['a'],
      cpuOffload: false,
    });
    expect(planned({ loadIn8bit: true, llmInt8EnableFp32CpuOffload: true })).toEqual({
      bits: 8,
      skipModules: null,
      cpuOffload: true,
    });
    expect(planned({})).toBeUndefined();
  });
});
