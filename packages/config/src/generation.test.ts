import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ConfigError } from './errors.js';
import { GENERATION_OPTION_NAMES } from './generation-fields.js';
import type { GenerationOptions } from './generation-fields.js';
import { newTokensFor } from './generation-length.js';
import { GenerationConfig, mergeGenerationConfig } from './generation.js';
import type { ConfigWarning } from './json.js';

const root = fileURLToPath(new URL('../fixtures/', import.meta.url));
const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) =>
  /generation.*\.json$/.test(name),
);

test('files of Python round trip byte for byte', () => {
  expect(files.length).toBe(17);
  for (const file of files) {
    const text = readFileSync(root + file, 'utf8');
    const config = GenerationConfig.fromJSON(text);
    expect(config.toText().trimEnd(), file).toBe(text.trimEnd());
    expect(JSON.stringify(GenerationConfig.fromJSON(JSON.parse(text)))).toBe(JSON.stringify(JSON.parse(text)));
  }
});

test('everything is unset until set; resolve fills in the defaults', () => {
  const config = new GenerationConfig();
  expect(GENERATION_OPTION_NAMES.every((name) => config[name] === null)).toBe(true);
  expect(config.toJSON()).toEqual({});
  expect(config.resolve()).toMatchObject({
    maxLength: 20,
    doSample: false,
    temperature: 1,
    topK: 50,
    topP: 1,
    numBeams: 1,
    repetitionPenalty: 1,
    maxNewTokens: null,
    minP: null,
  });
  expect(new GenerationConfig({ topK: 0, stopStrings: ['a'] }).resolve()).toMatchObject({
    topK: 0,
    stopStrings: ['a'],
  });
});

test.each([
  [{ temperature: 0, doSample: true }, /temperature is 0; must be greater than 0 when sampling/],
  [{ temperature: -1 }, /temperature is -1/],
  [{ topP: 0 }, /topP is 0; must be in \(0, 1\]/],
  [{ topP: 1.1 }, /topP is 1.1; must be in \(0, 1\]/],
  [{ minP: 2 }, /minP is 2; must be in \[0, 1\]/],
  [{ topK: -1 }, /topK is -1; must be 0 or more/],
  [{ topK: 1.5 }, /topK is 1.5; must be an integer/],
  [{ maxNewTokens: 0 }, /maxNewTokens is 0; must be greater than 0/],
  [{ earlyStopping: 'always' }, /earlyStopping is "always"; must be true, false or 'never'/],
  [{ numReturnSequences: 2 }, /greedy decoding gives one sequence/],
  [{ numReturnSequences: 3, numBeams: 2 }, /must be at most numBeams \(2\)/],
  [{ cacheImplementation: 'magic' }, /cacheImplementation is "magic"; must be one of dynamic/],
  [{ assistantEnsembleWeight: 1 }, /assistantEnsembleWeight is 1/],
  [{ forcedEosTokenId: [2, 3], suppressTokens: [1, 2, 3] }, /every forced token is also in suppressTokens/],
  [{ max_new_tokens: 5 }, /unknown option max_new_tokens; did you mean maxNewTokens\?/],
  [{ maxNewToken: 5 }, /did you mean maxNewTokens\?/],
  [{ stopStrings: [1] }, /stopStrings/],
])('%j is refused', (options, message) => {
  const make = (): GenerationConfig => new GenerationConfig(options as Partial<GenerationOptions>);
  expect(make).toThrow(ConfigError);
  expect(make).toThrow(message);
});

test('options without effect are warnings, errors when strict', () => {
  const config = new GenerationConfig({
    temperature: 0.5,
    topP: 0.9,
    lengthPenalty: 2,
    outputScores: true,
    padTokenId: -1,
  });
  expect(config.warnings.map((w) => w.field)).toEqual([
    'temperature',
    'topP',
    'lengthPenalty',
    'outputScores',
    'padTokenId',
  ]);
  expect(() => config.validate({ strict: true })).toThrow(/temperature is 0.5; it acts only when doSample is true/);
  expect(new GenerationConfig({ doSample: true, temperature: 0.5, numBeams: 2, lengthPenalty: 2 }).warnings).toEqual(
    [],
  );
  expect(new GenerationConfig({ useCache: false, cacheImplementation: 'static' }).warnings.map((w) => w.field)).toEqual(
    ['cacheImplementation'],
  );
});

test("merge: the caller's options win, and a model's own sampling options are silent under greedy decoding", () => {
  const base = GenerationConfig.fromJSON({
    do_sample: true,
    temperature: 0.6,
    top_p: 0.9,
    eos_token_id: [1, 2],
    max_new_tokens: 64,
    custom: 1,
  });
  const heard: ConfigWarning[] = [];
  const onWarning = (warning: ConfigWarning): void => void heard.push(warning);
  const greedy = mergeGenerationConfig(base, { doSample: false, maxNewTokens: 8, topK: undefined }, { onWarning });
  expect(greedy).toMatchObject({ doSample: false, temperature: 0.6, maxNewTokens: 8, eosTokenId: [1, 2] });
  expect(heard).toEqual([]);
  expect(greedy.toJSON()).toEqual({
    do_sample: false,
    temperature: 0.6,
    top_p: 0.9,
    eos_token_id: [1, 2],
    max_new_tokens: 8,
    custom: 1,
  });
  mergeGenerationConfig(base, { doSample: false, topP: 0.5 }, { onWarning });
  expect(heard.map((w) => w.field)).toEqual(['topP']);
  expect(mergeGenerationConfig(base, { eosTokenId: null }).eosTokenId).toBeNull();
  expect(mergeGenerationConfig(base, { maxLength: 100 })).toMatchObject({ maxLength: 100, maxNewTokens: null });
  expect(() => mergeGenerationConfig(base, { tempreature: 1 } as never)).toThrow('did you mean temperature?');
});

test('unknown keys of a file are kept and reported, arguments of generate() among them', () => {
  const config = GenerationConfig.fromJSON({ chat_format: 'chatml', max_new_tokens: 4 });
  expect(config.warnings.map((w) => w.field)).toEqual(['chat_format']);
  expect(config.toJSON()).toEqual({ chat_format: 'chatml', max_new_tokens: 4 });
  expect(GenerationConfig.fromJSON({ streamer: 'x' }).warnings.map((w) => w.field)).toEqual(['streamer']);
});

describe("a model's own file never blocks a call that does not use it", () => {
  test.each<[object, Partial<GenerationOptions>, RegExp | null]>([
    [{ do_sample: true, temperature: 0 }, { doSample: false }, /temperature is 0; must be greater than 0/],
    [{ do_sample: true, temperature: 0 }, { temperature: 0.5 }, /temperature is 0/],
    [{ do_sample: true, temperature: 'hot' }, { temperature: 1 }, /temperature is "hot"; must be a finite number/],
    [{ do_sample: true, top_p: 1.5 }, { topP: 0.9 }, /top_p is 1.5; must be in \(0, 1\]/],
    [{ do_sample: true, top_k: -1 }, { topK: 0 }, /top_k is -1.*give topK in the call/],
    [{ repetition_penalty: -2 }, { repetitionPenalty: 1 }, /repetition_penalty is -2/],
    [{ max_new_tokens: 0 }, { maxNewTokens: 5 }, /max_new_tokens is 0/],
    [{ num_beams: 'four' }, { numBeams: 1 }, /num_beams is "four"/],
    [{ do_sample: true, num_return_sequences: 2 }, { doSample: false }, null],
    [{ temperature: -3, top_p: 7, typical_p: 0 }, {}, null],
    [{ length_penalty: 'x', early_stopping: 'soon' }, {}, null],
    [{ use_cache: 'yes', cache_implementation: 'magic', output_scores: 1, compile_config: 3 }, {}, null],
  ])('%j overridden by %j', (file, override, refused) => {
    const config = GenerationConfig.fromJSON(JSON.stringify(file));
    expect(config.toJSON()).toEqual(file);
    expect(() => mergeGenerationConfig(config, override).resolve()).not.toThrow();
    if (refused) expect(() => mergeGenerationConfig(config, { bosTokenId: 1 }).resolve()).toThrow(refused);
    else expect(() => config.resolve()).not.toThrow();
    expect(() => new GenerationConfig({ temperature: -3 })).toThrow(ConfigError);
  });

  test('a bad value is a line when it is read, and the caller is refused in his own words', () => {
    const config = GenerationConfig.fromJSON({ top_k: -1, eos_token_id: 2 });
    expect(config.warnings).toMatchObject([{ code: 'invalid', field: 'top_k' }]);
    expect(config.warnings[0].message).toContain('top_k is -1; must be 0 or more; it is refused when it is used');
    expect(() => mergeGenerationConfig(config, { topP: 3 })).toThrow('topP is 3');
  });

  test('what changes no token is passed over when it comes from the file, not when the caller gives it', () => {
    const file = {
      use_cache: false,
      cache_implementation: 'static',
      return_dict_in_generate: true,
      output_attentions: true,
      suppress_tokens: [],
      bad_words_ids: [],
      stop_strings: [],
      renormalize_logits: true,
      prompt_lookup_num_tokens: 5,
      typical_p: 0.5,
      length_penalty: 2,
      guidance_scale: null,
    };
    const config = GenerationConfig.fromJSON(file);
    expect(config.resolve()).toEqual(new GenerationConfig().resolve());
    expect(mergeGenerationConfig(config, { useCache: false, typicalP: 0.5 }).resolve()).toMatchObject({
      useCache: false,
      typicalP: 0.5,
    });
    expect(mergeGenerationConfig(config, { doSample: true }).resolve().typicalP).toBe(0.5);
    expect(GenerationConfig.fromJSON({ num_beams: 4, min_length: 3 }).resolve()).toMatchObject({
      numBeams: 4,
      minLength: 3,
    });
  });
});

test('lengths: who said so decides whether they are cut', () => {
  const limit = (file: object, call: Partial<GenerationOptions> = {}) =>
    mergeGenerationConfig(GenerationConfig.fromJSON(file), call).lengthLimit();
  expect(limit({})).toEqual({ maxNewTokens: null, maxLength: null, source: 'default' });
  expect(limit({ max_length: 4096 })).toEqual({ maxNewTokens: null, maxLength: 4096, source: 'file' });
  expect(limit({ max_length: 9, max_new_tokens: 3 })).toEqual({ maxNewTokens: 3, maxLength: null, source: 'file' });
  expect(limit({ max_new_tokens: 3 }, { maxLength: 9 })).toEqual({
    maxNewTokens: null,
    maxLength: 9,
    source: 'caller',
  });
  expect(limit({ max_length: 9 }, { maxNewTokens: 3 })).toEqual({ maxNewTokens: 3, maxLength: null, source: 'caller' });
  expect(limit({ max_new_tokens: 3 }, { maxNewTokens: null }).source).toBe('default');

  expect([1, 19, 20, 60, 118].map((prompt) => newTokensFor(limit({}), prompt, 128))).toEqual([20, 20, 20, 20, 10]);
  expect(newTokensFor(limit({ max_length: 4096 }), 100, 128)).toBe(28);
  expect(newTokensFor(limit({ max_length: 30 }), 10, 128)).toBe(20);
  expect(newTokensFor(limit({ max_length: 30 }), 40, 128)).toBe(20);
  expect(newTokensFor(limit({ max_new_tokens: 2048 }), 100, 128)).toBe(28);
  expect(newTokensFor(limit({}, { maxNewTokens: 28 }), 100, 128)).toBe(28);
  expect(newTokensFor(limit({}, { maxLength: 128 }), 100, 128)).toBe(28);
  expect(() => newTokensFor(limit({}, { maxNewTokens: 29 }), 100, 128)).toThrow(
    /100 tokens and maxNewTokens is 29; the model reaches 128 tokens; set maxNewTokens to 28 or less/,
  );
  expect(() => newTokensFor(limit({}, { maxLength: 129 }), 100, 128)).toThrow(/maxLength is 129/);
  expect(() => newTokensFor(limit({}, { maxLength: 100 }), 100, 128)).toThrow(/set maxNewTokens, or a larger/);
  expect(() => newTokensFor(limit({ max_length: 4096 }), 128, 128)).toThrow(/the prompt has 128 tokens; the model/);
});

test('any valid options survive the round trip', () => {
  const id = fc.integer({ min: 0, max: 1e6 });
  const options = fc.record(
    {
      maxNewTokens: fc.integer({ min: 1, max: 1e6 }),
      temperature: fc.double({ min: 0.01, max: 10, noNaN: true }),
      topP: fc.double({ min: 0.001, max: 1, noNaN: true }),
      topK: id,
      doSample: fc.constant(true),
      eosTokenId: fc.oneof(id, fc.array(id)),
      stopStrings: fc.oneof(fc.string(), fc.array(fc.string())),
      badWordsIds: fc.array(fc.array(id)),
      sequenceBias: fc.array(
        fc.tuple(
          fc.array(id),
          fc.double({ noNaN: true, noDefaultInfinity: true }).map((x) => x + 0),
        ),
      ),
      repetitionPenalty: fc.double({ min: 0.1, max: 4, noNaN: true }),
      earlyStopping: fc.constantFrom(true, false, 'never'),
    },
    { requiredKeys: [] },
  ) as fc.Arbitrary<Partial<GenerationOptions>>;
  fc.assert(
    fc.property(options, (given) => {
      const config = new GenerationConfig(given);
      const again = GenerationConfig.fromJSON(config.toText());
      expect({ ...again }).toEqual({ ...config });
      expect(again.toText()).toBe(config.toText());
      expect({ ...mergeGenerationConfig(config, {}) }).toEqual({ ...config });
    }),
  );
});
