// What a call says over what the model's file says: lengths, sampling, seeds, stop strings, inputs.
import { ConfigError, GenerationConfig, UnsupportedError, type GenerationOptions } from '@q/config';
import type { GenerationRequest } from '@q/generate';
import { describe, expect, it } from 'vitest';
import { requestsFor, type GenerateOptions } from './generation-options.js';
import type { Tokenizer } from './tokenizer/tokenizer.js';

const tokenizer = {
  encode: (text: string) => Array.from(text, (_, i) => i),
  decode: (ids: readonly number[]) => ids.map(() => 'a').join(''),
} as unknown as Tokenizer;
const context = { tokenizer, vocabSize: 100, maxContext: 64 };

const requests = (options: GenerateOptions, file: Partial<GenerationOptions> = {}): GenerationRequest[] =>
  requestsFor(options, { ...context, base: GenerationConfig.fromJSON(new GenerationConfig(file).toJSON()) });

const inputOf = (length: number) => ({ inputIds: [Array.from({ length }, (_, i) => i % 100)] });

const newTokens = (length: number, options: GenerateOptions = {}, file: Partial<GenerationOptions> = {}): number =>
  requests({ ...inputOf(length), ...options }, file)[0].maxNewTokens;

describe('lengths', () => {
  it('are 20 new tokens without any, cut at the context', () => {
    expect([1, 20, 40, 50, 63].map((length) => newTokens(length))).toEqual([20, 20, 20, 14, 1]);
  });

  it('of the file are cut to what fits', () => {
    expect([4, 40, 60].map((length) => newTokens(length, {}, { maxNewTokens: 30 }))).toEqual([30, 24, 4]);
    expect([4, 29].map((length) => newTokens(length, {}, { maxLength: 30 }))).toEqual([26, 1]);
    expect(newTokens(10, {}, { maxLength: 4096 })).toBe(54);
  });

  it('of the file that the prompt has used up are passed over', () => {
    expect([30, 50].map((length) => newTokens(length, {}, { maxLength: 30 }))).toEqual([20, 14]);
  });

  it('of the caller hold, over both of the file', () => {
    expect(newTokens(5, { maxNewTokens: 7 }, { maxLength: 6, maxNewTokens: 40 })).toBe(7);
    expect(newTokens(5, { maxLength: 8 }, { maxNewTokens: 40 })).toBe(3);
    expect(newTokens(5, { maxLength: 8, maxNewTokens: 9 })).toBe(9);
    expect(newTokens(5, { maxNewTokens: null, maxLength: null }, { maxNewTokens: 3, maxLength: 7 })).toBe(20);
  });

  it.each([
    [5, { maxLength: 5 }, /prompt has 5 tokens and maxLength is 5/],
    [9, { maxLength: 2 }, /prompt has 9 tokens and maxLength is 2/],
    [5, { maxLength: 65 }, /maxLength is 65.*reaches 64.*59 or less/],
    [5, { maxNewTokens: 60 }, /maxNewTokens is 60.*reaches 64.*59 or less/],
    [64, { maxNewTokens: 1 }, /prompt has 64 tokens.*shorten the prompt/],
    [70, {}, /prompt has 70 tokens.*shorten the prompt/],
  ] as [number, GenerateOptions, RegExp][])('a prompt of %i and %j', (length, options, message) => {
    expect(() => newTokens(length, options)).toThrow(ConfigError);
    expect(() => newTokens(length, options)).toThrow(message);
  });
});

describe('sampling', () => {
  const samples = (options: GenerateOptions, file: Partial<GenerationOptions> = {}) =>
    requests({ ...inputOf(2), ...options }, file)[0].sampling.doSample;

  it.each([{ temperature: 0.7 }, { temperature: 1 }, { topK: 5 }, { topP: 0.9 }, { minP: 0.1 }])(
    '%j implies it',
    (options) => {
      expect(samples(options)).toBe(true);
      expect(samples({ ...options, doSample: true })).toBe(true);
      expect(samples({ ...options, numReturnSequences: 2 })).toBe(true);
    },
  );

  it('is what the file says without an option of the caller', () => {
    expect(samples({})).toBe(false);
    expect(samples({ seed: 3, repetitionPenalty: 1.1 })).toBe(false);
    expect(samples({ temperature: undefined, topP: undefined })).toBe(false);
    expect(samples({}, { doSample: true, temperature: 0.6 })).toBe(true);
    expect(samples({ doSample: false }, { doSample: true, temperature: 0.6, topP: 0.9 })).toBe(false);
    expect(samples({ temperature: 0.5 }, { doSample: false })).toBe(true);
  });

  it('a temperature of 0 is greedy decoding', () => {
    expect(samples({ temperature: 0 })).toBe(false);
    expect(samples({ temperature: 0, topP: 0.5 }, { doSample: true })).toBe(false);
    expect(samples({ temperature: 0, doSample: false })).toBe(false);
    expect(() => samples({ temperature: 0, doSample: true })).toThrow(/temperature is 0/);
  });

  it.each([{ temperature: 0.7 }, { topK: 40 }, { topP: 0.9 }, { minP: 0.1 }])(
    '%j beside doSample: false',
    (options) => {
      const call = () => samples({ ...options, doSample: false });
      expect(call).toThrow(ConfigError);
      expect(call).toThrow(`${Object.keys(options)[0]} beside doSample: false`);
    },
  );

  it('values that change nothing go beside doSample: false', () => {
    expect(samples({ temperature: 1, topP: 1, topK: 0, minP: 0, doSample: false })).toBe(false);
  });
});

describe('seeds', () => {
  const seeds = (options: GenerateOptions) =>
    requests({ prompts: ['a', 'bc', 'd'], ...options }).map(({ sampling }) => sampling.seed);

  it('are the same for each prompt, or one of a list', () => {
    expect(seeds({ seed: 7 })).toEqual([7, 7, 7]);
    expect(seeds({ seed: [3, 1, 4] })).toEqual([3, 1, 4]);
    expect(seeds({ seed: [10, 20, 30], doSample: true, numReturnSequences: 2 })).toEqual([10, 11, 20, 21, 30, 31]);
    expect(new Set(seeds({})).size).toBe(3);
  });

  it.each([
    [-1, /seed is -1/],
    [1.5, /seed is 1.5/],
    [Number.NaN, /seed is NaN/],
    [2 ** 53, /seed is 9007199254740992/],
    [null, /seed is null/],
    ['7', /seed is "7"/],
    [7n, /seed is 7n/],
    [[1, 2], /list of 2.*prompts 3/],
    [[1, 2, -3], /seed\[2\] is -3/],
    [[1, 2, undefined], /seed\[2\] is undefined/],
  ])('%s is refused', (seed, message) => {
    expect(() => seeds({ seed: seed as number })).toThrow(ConfigError);
    expect(() => seeds({ seed: seed as number })).toThrow(message);
  });
});

describe("the model's own file", () => {
  it.each([
    { useCache: false },
    { cacheImplementation: 'static' },
    { suppressTokens: [], badWordsIds: [], sequenceBias: [] },
    { outputScores: true, returnDictInGenerate: true },
    { renormalizeLogits: true },
    { typicalP: 0.9, epsilonCutoff: 1e-3 },
    { lengthPenalty: 2, earlyStopping: true },
    { prefillChunkSize: 64, compileConfig: {} },
    { stopStrings: '' },
  ] as Partial<GenerationOptions>[])('%j changes no token of a greedy call', (file) => {
    const call = { ...inputOf(3), seed: 1 };
    expect(requests(call, file)).toEqual(requests(call));
  });

  it.each([
    [{ numBeams: 4 }, /numBeams = 4.*give numBeams: 1/],
    [{ noRepeatNgramSize: 3 }, /noRepeatNgramSize = 3.*give noRepeatNgramSize: 0/],
    [{ suppressTokens: [1] }, /suppressTokens = \[1\].*give suppressTokens: null/],
  ] as [Partial<GenerationOptions>, RegExp][])('%j is refused with advice that works', (file, message) => {
    expect(() => requests(inputOf(3), file)).toThrow(UnsupportedError);
    expect(() => requests(inputOf(3), file)).toThrow(message);
    const [[name]] = Object.entries(file);
    const advice = JSON.parse(/give \w+: (\S+) to do/.exec(messageOf(() => requests(inputOf(3), file)))![1]) as unknown;
    expect(requests({ ...inputOf(3), [name]: advice }, file).length).toBe(1);
  });

  it('an option of the caller that would do nothing is refused all the same', () => {
    for (const options of [{ useCache: false }, { outputScores: true }, { typicalP: 0.9 }, { lengthPenalty: 2 }])
      expect(() => requests({ ...inputOf(3), ...options })).toThrow(UnsupportedError);
    expect(requests({ ...inputOf(3), useCache: true, suppressTokens: [], numBeams: 1 }).length).toBe(1);
  });
});

const messageOf = (call: () => unknown): string => {
  try {
    call();
  } catch (error) {
    return (error as Error).message;
  }
  return '';
};

describe('inputs', () => {
  it.each([
    [{}, /0 of inputIds, prompt, prompts and messages/],
    [{ prompt: 'a', prompts: ['b'] }, /2 of inputIds/],
    [{ prompt: 5 }, /prompt is 5/],
    [{ prompt: null }, /prompt is null/],
    [{ prompt: ['a'] }, /prompt is a list.*prompts for several/],
    [{ prompts: 'abc' }, /prompts is "abc".*as prompt/],
    [{ prompts: [] }, /prompts is an empty list/],
    [{ prompts: ['a', 3] }, /prompts\[1\] is 3/],
    [{ prompts: ['a', undefined] }, /prompts\[1\] is undefined/],
    [{ inputIds: [] }, /inputIds is an empty list/],
    [{ inputIds: 'ab' }, /inputIds is "ab"/],
    [{ inputIds: null }, /inputIds is null/],
    [{ inputIds: [1, 2] }, /flat list.*inputIds: \[ids\]/],
    [{ inputIds: [1n, 2n] }, /flat list/],
    [{ inputIds: [[1], 2] }, /inputIds\[1\] is 2/],
    [{ inputIds: [[1n]] }, /inputIds\[0\]\[0\]: 1n is no token id/],
    [
      {
        inputIds: [
          [1, 2],
          [3, 100],
        ],
      },
      /inputIds\[1\]\[1\]: 100 is no token id/,
    ],
    [{ inputIds: [[0.5]] }, /0.5 is no token id/],
    [{ inputIds: [[-1]] }, /-1 is no token id/],
    [{ inputIds: [['1']] }, /"1" is no token id/],
    [{ inputIds: [Array(3)] }, /undefined is no token id/],
    [{ inputIds: [new Int32Array([1, 2])] }, /inputIds\[0\] is an Int32Array/],
    [{ inputIds: [[1, 2]], attentionMask: [[1]] }, /attentionMask/],
    [{ inputIds: [[1, 2]], attentionMask: [1, 1] }, /attentionMask/],
    [{ inputIds: [[1, 2]], attentionMask: 1 }, /attentionMask/],
    [{ inputIds: [[1, 2]], attentionMask: [[1, 2]] }, /attentionMask/],
    [{ inputIds: [[1, 2]], attentionMask: null }, /attentionMask/],
    [{ inputIds: [[1, 2], [3]], attentionMask: [[1, 1]] }, /attentionMask/],
    [{ prompt: 'a', attentionMask: [[1]] }, /attentionMask goes with inputIds/],
    [{ prompt: 'a', signal: {} }, /signal is/],
    [{ prompt: 'a', maxNewTokens: 4n }, /maxNewTokens is 4n/],
    [{ prompt: 'a', temperature: Number.NaN }, /temperature is NaN/],
    [{ prompt: 'a', stopStrings: '' }, /stopStrings holds an empty text/],
    [{ prompt: 'a', stopStrings: ['x', ''] }, /stopStrings holds an empty text/],
  ] as [GenerateOptions, RegExp][])('case %#', (options, message) => {
    expect(() => requests(options)).toThrow(ConfigError);
    expect(() => requests(options)).toThrow(message);
  });
});
