import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { BitsAndBytesOptions } from './bitsandbytes.js';
import { BitsAndBytesConfig } from './bitsandbytes.js';
import { ConfigError, UnsupportedError } from './errors.js';
import type { GPTQOptions } from './gptq.js';
import { GPTQConfig } from './gptq.js';
import type { ConfigWarning, JsonObject } from './json.js';
import { parseQuantizationConfig } from './quantization.js';

const root = fileURLToPath(new URL('../fixtures/quantized/', import.meta.url));
const load = (file: string): JsonObject => JSON.parse(readFileSync(root + file, 'utf8')) as JsonObject;

describe('files of the Python libraries', () => {
  test('round trip exactly, key order included, without warnings', () => {
    let seen = 0;
    for (const file of readdirSync(root)) {
      const json = load(file);
      const section = file.endsWith('quantize_config.json') ? json : json.quantization_config;
      if (section === undefined) continue;
      const config = parseQuantizationConfig(section);
      expect(JSON.stringify(config), file).toBe(JSON.stringify(section));
      expect(config.warnings, file).toEqual([]);
      if (section === json)
        expect(
          GPTQConfig.fromJSON(readFileSync(root + file, 'utf8'))
            .toText()
            .trimEnd(),
        ).toBe(readFileSync(root + file, 'utf8').trimEnd());
      seen++;
    }
    expect(seen).toBe(48);
  });

  test('an object made here writes what transformers writes', () => {
    const nf4 = new BitsAndBytesConfig({
      loadIn4bit: true,
      bnb4bitQuantType: 'nf4',
      bnb4bitUseDoubleQuant: true,
      bnb4bitComputeDtype: 'bfloat16',
    });
    expect(JSON.stringify(nf4)).toBe(JSON.stringify(load('bnb.llama.nf4-nested-bf16.config.json').quantization_config));
    expect(nf4.toText()).toContain('"llm_int8_threshold": 6.0');
    const int8 = new BitsAndBytesConfig({
      loadIn8bit: true,
      llmInt8Threshold: 3,
      llmInt8SkipModules: ['lm_head', 'fc2', 'down_proj', 'dense_4h_to_h', 'wo'],
    });
    expect(int8.toJSON()).toEqual(load('bnb.llama.int8-skip.config.json').quantization_config);
  });
});

describe('BitsAndBytesConfig', () => {
  test('defaults', () => {
    expect({ ...new BitsAndBytesConfig() }).toEqual({
      loadIn8bit: false,
      loadIn4bit: false,
      llmInt8Threshold: 6,
      llmInt8SkipModules: null,
      llmInt8EnableFp32CpuOffload: false,
      llmInt8HasFp16Weight: false,
      bnb4bitComputeDtype: 'float32',
      bnb4bitQuantType: 'fp4',
      bnb4bitUseDoubleQuant: false,
      bnb4bitQuantStorage: 'uint8',
    });
  });

  test('method and isQuantizable', () => {
    const method = (options: Partial<BitsAndBytesOptions>) => new BitsAndBytesConfig(options).quantizationMethod();
    expect([
      method({}),
      method({ loadIn8bit: true }),
      method({ loadIn4bit: true }),
      method({ loadIn4bit: true, bnb4bitQuantType: 'nf4' }),
    ]).toEqual([null, 'llm_int8', 'fp4', 'nf4']);
    expect([
      new BitsAndBytesConfig().isQuantizable,
      new BitsAndBytesConfig({ loadIn4bit: true }).isQuantizable,
    ]).toEqual([false, true]);
  });

  test.each([
    [{ loadIn4bit: true, loadIn8bit: true }, /loadIn4bit.*loadIn8bit.*only one/],
    [{ loadIn4bit: 1 }, /loadIn4bit is 1; must be true or false/],
    [{ llmInt8Threshold: '6' }, /llmInt8Threshold is "6"; must be a finite number/],
    [{ llmInt8Threshold: -1 }, /llmInt8Threshold is -1; must be 0 or more/],
    [{ llmInt8SkipModules: 'lm_head' }, /llmInt8SkipModules is "lm_head"; must be a list of strings/],
    [{ bnb4bitQuantType: 'nf3' }, /bnb4bitQuantType is "nf3"; must be fp4 or nf4/],
    [{ bnb4bitComputeDtype: 'int8' }, /bnb4bitComputeDtype is "int8"; must be one of float32, float16, bfloat16/],
    [{ bnb4bitQuantStorage: 'int64' }, /bnb4bitQuantStorage is "int64"; must be one of/],
    [{ loadIn4Bit: true }, /unknown option loadIn4Bit; did you mean loadIn4bit\?/],
  ])('%j is refused', (options, message) => {
    expect(() => new BitsAndBytesConfig(options as Partial<BitsAndBytesOptions>)).toThrow(ConfigError);
    expect(() => new BitsAndBytesConfig(options as Partial<BitsAndBytesOptions>)).toThrow(message);
  });

  test('errors in a file name the key of the file', () => {
    expect(() => BitsAndBytesConfig.fromJSON({ load_in_4bit: 'yes' })).toThrow('load_in_4bit is "yes"');
    expect(() => BitsAndBytesConfig.fromJSON({ load_in_4bit: true, _load_in_4bit: false })).toThrow(
      '_load_in_4bit is false but load_in_4bit is true',
    );
    expect(() => BitsAndBytesConfig.fromJSON({ quant_method: 'awq' })).toThrow(ConfigError);
  });

  test('unknown keys are kept, reported and written back, also after a change', () => {
    const heard: ConfigWarning[] = [];
    const json = { zeta: { a: [1] }, load_in_4bit: true, bnb_4bit_compute_dtype: 'torch.float16' };
    const config = BitsAndBytesConfig.fromJSON(json, { onWarning: (warning) => heard.push(warning) });
    expect(heard.map((w) => [w.code, w.field])).toEqual([['unknown_key', 'zeta']]);
    expect(config.warnings).toEqual(heard);
    expect(JSON.stringify(config)).toBe(JSON.stringify(json));
    const after = config.with({ loadIn4bit: false, loadIn8bit: true });
    expect(after.toJSON()).toEqual({
      ...json,
      load_in_4bit: false,
      load_in_8bit: true,
      _load_in_4bit: false,
      _load_in_8bit: true,
    });
    expect(after.with({ loadIn4bit: true, loadIn8bit: false }).toJSON()).toEqual(json);
  });

  test('frozen', () => {
    const config = new BitsAndBytesConfig({ llmInt8SkipModules: ['a'] });
    expect(Object.isFrozen(config) && Object.isFrozen(config.llmInt8SkipModules)).toBe(true);
  });

  test('any options survive the round trip', () => {
    const float = fc.constantFrom('float32', 'float16', 'bfloat16');
    const options = fc.record(
      {
        llmInt8Threshold: fc.double({ min: 0, max: 1e6, noNaN: true }).map((x) => x + 0),
        llmInt8SkipModules: fc.option(fc.array(fc.string())),
        llmInt8EnableFp32CpuOffload: fc.boolean(),
        llmInt8HasFp16Weight: fc.boolean(),
        bnb4bitComputeDtype: float,
        bnb4bitQuantType: fc.constantFrom('fp4', 'nf4'),
        bnb4bitUseDoubleQuant: fc.boolean(),
        bnb4bitQuantStorage: fc.constantFrom('uint8', 'float64', 'bfloat16'),
        loadIn4bit: fc.boolean(),
      },
      { requiredKeys: [] },
    ) as fc.Arbitrary<Partial<BitsAndBytesOptions>>;
    fc.assert(
      fc.property(options, (given) => {
        const config = new BitsAndBytesConfig(given);
        const again = BitsAndBytesConfig.fromJSON(config.toText());
        expect({ ...again }).toEqual({ ...config });
        expect(again.toText()).toBe(config.toText());
      }),
    );
  });
});

describe('GPTQConfig', () => {
  test('defaults', () => {
    const config = new GPTQConfig({ bits: 4 });
    expect(config).toMatchObject({
      groupSize: 128,
      dampPercent: 0.1,
      descAct: false,
      actGroupAware: true,
      sym: true,
      trueSequential: true,
      checkpointFormat: 'gptq',
      backend: 'auto',
      batchSize: 1,
      cacheBlockOutputs: true,
      dataset: null,
    });
    expect(config.quantizationMethod()).toBe('gptq');
    expect(config.toJSON()).toMatchObject({ quant_method: 'gptq', bits: 4, module_name_preceding_first_block: null });
    expect(config.toJSON()).not.toHaveProperty('use_exllama');
    expect(new GPTQConfig({ bits: 4, descAct: true }).actGroupAware).toBe(false);
  });

  test.each([
    [{}, /bits is missing; must be one of 2, 3, 4, 8/],
    [{ bits: 5 }, /bits is 5; must be one of 2, 3, 4, 8/],
    [{ bits: 4, groupSize: 0 }, /groupSize is 0; must be greater than 0 or equal to -1/],
    [{ bits: 4, dampPercent: 1 }, /dampPercent is 1; must be between 0 and 1/],
    [{ bits: 4, dataset: 'ptb' }, /dataset is "ptb"; must be a list of strings or one of wikitext2, c4, c4-new/],
    [{ bits: 4, checkpointFormat: 'marlin' }, /checkpointFormat is "marlin"; must be gptq or gptq_v2/],
    [{ bits: 4, exllamaConfig: {} }, /exllamaConfig.version is missing; must be 1 or 2/],
    [{ bits: 4, useExllama: true, disableExllama: false }, /both name the same setting/],
    [{ bits: 4, groupsize: 32 }, /did you mean groupSize\?/],
  ])('%j is refused', (options, message) => {
    expect(() => new GPTQConfig(options as Partial<GPTQOptions>)).toThrow(message);
  });

  test('disableExllama becomes useExllama', () => {
    const json = { bits: 4, disable_exllama: true };
    const config = GPTQConfig.fromJSON(json);
    expect([config.useExllama, config.disableExllama, config.warnings.map((w) => w.code)]).toEqual([
      false,
      null,
      ['deprecated'],
    ]);
    expect(config.toJSON()).toEqual(json);
  });

  test('layouts that Q cannot read are refused', () => {
    for (const odd of [{ dynamic: { '-:lm_head': {} } }, { is_marlin_format: true }, { pack_dtype: 'int16' }])
      expect(() => GPTQConfig.fromJSON({ bits: 4, ...odd })).toThrow(UnsupportedError);
    expect(() => GPTQConfig.fromJSON({ bits: 4, dynamic: null, is_marlin_format: false })).not.toThrow();
  });
});

test('__proto__ in a file is a key like any other', () => {
  const json = JSON.parse('{"load_in_4bit": true, "__proto__": {"loadIn8bit": true}}') as JsonObject;
  const config = BitsAndBytesConfig.fromJSON(json);
  expect(config.loadIn8bit).toBe(false);
  expect(JSON.stringify(config)).toBe(JSON.stringify(json));
});

test('the method decides the class', () => {
  expect(parseQuantizationConfig({ load_in_8bit: true })).toBeInstanceOf(BitsAndBytesConfig);
  expect(() => parseQuantizationConfig({ quant_method: 'magic' })).toThrow(/supported: bitsandbytes, gptq/);
  expect(() => parseQuantizationConfig({ bits: 4 })).toThrow(/quant_method is missing/);
  expect(() => parseQuantizationConfig(null)).toThrow(ConfigError);
});
