// What callers do with a model: promises, concurrent calls, wrong arguments, calls after dispose.
import { describe, expect, it } from 'vitest';
import {
  AutoConfig,
  AutoModelForCausalLM,
  AutoTokenizer,
  ConfigError,
  DisposedError,
  Generation,
  openDevice,
  planFor,
  ShapeError,
  type CausalModel,
  type GenerateOptions,
} from './index.js';
import { temporaryFolders, unpackCheckpoint } from './testing.js';

const temporary = temporaryFolders();
const load = async (name = 'llama'): Promise<CausalModel> =>
  AutoModelForCausalLM.fromPretrained(await unpackCheckpoint(name, await temporary(name)), { threads: 1 });

const options = { inputIds: [[1, 324, 310], [1]], maxNewTokens: 12, eosTokenId: null } as const;
const bad = { inputIds: [[1]], maxNewTokens: 0 };

describe('a generation is a promise', () => {
  it('with then, catch, finally and the functions that take promises', async () => {
    await using model = await load();
    const generation = model.generate(options);
    expect(generation).toBeInstanceOf(Promise);
    expect(generation).toBeInstanceOf(Generation);
    expect(Object.prototype.toString.call(generation)).toBe('[object Promise]');
    const { newTokens } = await generation;
    expect((await generation).newTokens).toBe(newTokens);
    let ended = 0;
    const tokensOf = (again: Promise<{ newTokens: unknown }>) => again.then((result) => result.newTokens);
    const chained = model.generate(options).finally(() => (ended += 1));
    expect(chained).not.toBeInstanceOf(Generation);
    expect(await tokensOf(chained)).toEqual(newTokens);
    expect(await tokensOf(model.generate(options).catch(() => expect.unreachable()))).toEqual(newTokens);
    const both = await Promise.all([model.generate(options), model.generate(options)]);
    expect(both.map((result) => result.newTokens)).toEqual([newTokens, newTokens]);
    expect(ended).toBe(1);
  });

  it('that bad options reject, and nothing is thrown before', async () => {
    await using model = await load();
    await expect(model.generate(bad)).rejects.toThrow(ConfigError);
    expect(await model.generate(bad).catch((error: unknown) => error)).toBeInstanceOf(ConfigError);
    const iterator = model.generate(bad)[Symbol.asyncIterator]();
    await expect(iterator.next()).rejects.toThrow(ConfigError);
    expect((await iterator.next()).done).toBe(true);
    for (const wrong of [null, undefined, 5, 'text', ['a'], { prompt: 'a', maxNewToken: 3 }])
      await expect(model.generate(wrong as GenerateOptions)).rejects.toThrow(ConfigError);
    expect(model.generate(bad)).toBeInstanceOf(Promise); // and nobody asks: no unhandled rejection
  });

  it('whose options count as they were when it was called', async () => {
    await using model = await load();
    const { newTokens } = await model.generate(options);
    const own = { ...options, inputIds: [[1, 324, 310], [1]] };
    const generation = model.generate(own);
    own.inputIds[0].push(99_999);
    own.inputIds.pop();
    expect((await generation).newTokens).toEqual(newTokens);
  });
});

describe('two callers', () => {
  it('of generate, forward and score get what they get alone', async () => {
    await using model = await load();
    const score = () => model.score([[1, 5, 9, 200, 33]]);
    const sampled = { ...options, temperature: 0.9, seed: 4 };
    const alone = [(await model.generate(options)).newTokens, (await model.generate(sampled)).newTokens, await score()];
    const together = [model.generate(options), model.generate(sampled)].map((run) => run.then((r) => r.newTokens));
    expect(await Promise.all([...together, score()])).toEqual(alone);
  });

  it('a seeded request gives the same tokens alone, in any place of a batch, and by its own seed', async () => {
    await using model = await load();
    const sampled = { maxNewTokens: 12, eosTokenId: null, temperature: 1.3 };
    const prompts = [
      [1, 324],
      [7, 8, 9],
      [1, 324],
    ];
    const tokens = async (inputIds: number[][], seed: number | number[]) =>
      (await model.generate({ ...sampled, inputIds, seed })).newTokens;
    const [alone] = await tokens([prompts[0]], 11);
    const batch = await tokens(prompts, 11);
    expect([batch[0], batch[2]]).toEqual([alone, alone]);
    expect((await tokens(prompts, [5, 6, 11]))[2]).toEqual(alone);
    expect((await tokens(prompts, [5, 6, 11]))[0]).toEqual((await tokens([prompts[0]], 5))[0]);
  });
});

describe('after dispose', () => {
  it('every call says so, and disposing again is fine', async () => {
    const model = await load();
    const past = model.createPast({ sequences: 1, maxLength: 8 });
    const generation = model.generate(options);
    const steps = model.generate(options)[Symbol.asyncIterator]();
    await steps.next();
    const scoring = model.score([Array.from({ length: 120 }, (_, i) => i)]);
    scoring.catch(() => undefined);
    await Promise.all([model.dispose(), model.dispose()]);
    await model[Symbol.asyncDispose]();
    const folder = await temporary();
    const calls: Record<string, () => unknown> = {
      'a generation under way': () => steps.next(),
      'a generation not begun': () => generation,
      score: () => scoring,
      'generate again': () => model.generate(options),
      'generate with bad options': () => model.generate(bad),
      forward: () => model.forward({ inputIds: [[1]] }),
      'a past': () => past.forward([[1]]),
      createPast: () => model.createPast({ sequences: 1, maxLength: 8 }),
      'score again': () => model.score([[1, 2]]),
      savePretrained: () => model.savePretrained(folder),
      summary: () => model.summary(),
      getMemoryFootprint: () => model.getMemoryFootprint(),
      weightBytes: () => model.weightBytes,
      decodeWeightBytes: () => model.decodeWeightBytes,
      dtype: () => model.dtype,
      'memory()': () => model.backend.empty([1], 'f32'),
    };
    for (const [name, call] of Object.entries(calls))
      await expect((async () => call())(), name).rejects.toThrow(DisposedError);
    past.dispose();
    expect(model.config.modelType).toBe('llama');
  });
});

describe('wrong arguments', () => {
  const vocabulary = 512;

  it.each([
    ['null', null, /must be an object/],
    ['an unknown option', { inputIds: [[1]], inputId: 1 }, /did you mean inputIds/],
    ['no ids', {}, /inputIds is undefined/],
    ['flat ids', { inputIds: [1, 2] }, /flat list/],
    ['no rows', { inputIds: [] }, /an empty list/],
    ['empty rows', { inputIds: [[], []] }, /rectangle/],
    ['ragged rows', { inputIds: [[1, 2], [3]] }, /rectangle.*\[2,1\]/],
    ['BigInt', { inputIds: [[1n]] }, /1n is no token id/],
    ['an id too large', { inputIds: [[vocabulary]] }, /512 is no token id/],
    ['a ragged mask', { inputIds: [[1, 2]], attentionMask: [[1]] }, /attentionMask/],
    ['a mask of nothing', { inputIds: [[1, 2]], attentionMask: [[0, 0]] }, /leaves no token/],
    ['more than the context', { inputIds: [Array(129).fill(1)] }, /inputIds\[0\] has 129 tokens.*has 128/],
    ['a past that is none', { inputIds: [[1]], past: {} }, /past is an object/],
  ])('forward: %s', async (_, input, message) => {
    await using model = await load();
    const call = () => model.forward(input as { inputIds: number[][] }).dispose();
    expect(call).toThrow(ConfigError);
    expect(call).toThrow(message);
  });

  it('a past of another model, and lengths that a caller changed, reach no kernel', async () => {
    await using model = await load();
    await using other = await load();
    using past = model.createPast({ sequences: 1, maxLength: 8 });
    expect(() => other.forward({ inputIds: [[1]], past })).toThrow(/past is of another model/);
    model.forward({ inputIds: [[1, 2]], past }).dispose();
    (past.lengths as number[])[0] = -5;
    expect(past.lengths).toEqual([2]);
    model.forward({ inputIds: [[3]], past }).dispose();
    expect(past.lengths).toEqual([3]);
  });

  it('forward: a past of another size, or outgrown', async () => {
    await using model = await load();
    using past = model.createPast({ sequences: 1, maxLength: 3 });
    expect(() => model.forward({ inputIds: [[1], [2]], past })).toThrow(ShapeError);
    model.forward({ inputIds: [[1, 2]], past }).dispose();
    expect(() => model.forward({ inputIds: [[1, 2]], past })).toThrow(/outgrows/);
  });

  it.each([
    ['no list', 'abc', {}, /windows is "abc"/],
    ['no windows', [], {}, /an empty list/],
    ['a flat list', [1, 2, 3], {}, /windows\[0\] is 1/],
    ['one token', [[1, 2], [3]], {}, /windows\[1\] has 1 tokens/],
    ['a fraction', [[1, 2.5]], {}, /2.5 is no token id/],
    ['more than the context', [Array(200).fill(1)], {}, /windows\[0\] has 200 tokens/],
    ['an unknown option', [[1, 2]], { onwindow: () => undefined }, /onWindow/],
    ['onWindow that is no function', [[1, 2]], { onWindow: 3 }, /onWindow is 3/],
    ['a signal that is none', [[1, 2]], { signal: new AbortController() }, /signal is an AbortController/],
    ['null', [[1, 2]], null, /must be an object/],
  ])('score: %s', async (_, windows, rest, message) => {
    await using model = await load();
    const call = model.score(windows as number[][], rest as object);
    await expect(call).rejects.toThrow(ConfigError);
    await expect(call).rejects.toThrow(message);
  });

  it.each([
    [{ sequences: 0, maxLength: 4 }, /sequences is 0/],
    [{ sequences: 1.5, maxLength: 4 }, /sequences is 1.5/],
    [{ sequences: 1 }, /maxLength is undefined/],
    [{ sequences: 1, maxLength: 1000 }, /maxLength is 1000.*1 to 128/],
    [{ sequences: 1, maxLength: 4, length: 4 }, /maxLength/],
    [null, /must be an object/],
  ])('createPast: %j', async (past, message) => {
    await using model = await load();
    const call = () => model.createPast(past as { sequences: number; maxLength: number });
    expect(call).toThrow(ConfigError);
    expect(call).toThrow(message);
  });

  it.each([undefined, null, '', '  ', 5, {}, []])('fromPretrained(%j)', async (id) => {
    for (const auto of [AutoModelForCausalLM, AutoConfig, AutoTokenizer])
      await expect(auto.fromPretrained(id as string)).rejects.toThrow(ConfigError);
  });

  it.each([
    [null, /must be an object/],
    [{ maxBatchSize: 0 }, /maxBatchSize is 0/],
    [{ maxBatchSize: Number.NaN }, /maxBatchSize is NaN/],
    [{ threads: -1 }, /threads is -1/],
    [{ threads: 1.5 }, /threads is 1.5/],
    [{ threads: 4n }, /threads is 4n/],
    [{ checkFinite: 1 }, /checkFinite is 1/],
    [{ signal: 'x' }, /signal is "x"/],
    [{ onProgress: 'x' }, /onProgress is "x"/],
    [{ onWarning: [] }, /onWarning is an empty list/],
    [{ loadIn4bit: 'yes' }, /loadIn4bit is "yes"/],
    [{ quantizationConfig: { loadIn4bit: true } }, /quantizationConfig is an object; give a BitsAndBytesConfig/],
    [{ quantizationConfig: 'nf4' }, /quantizationConfig is "nf4"/],
    [{ loadIn4bit: true, bnb4bitQuantType: 'nf4' }, /bnb4bitQuantType is an option of quantizationConfig/],
    [{ dtype: 'float16' }, /did you mean torchDtype/],
    [{ deviceMap: 'auto', maxMemory: '8GB' }, /maxMemory is "8GB"/],
    [{ deviceMap: 'auto', maxMemory: { cpu: 'all' } }, /maxMemory of cpu is not a size/],
  ])('options of fromPretrained: %o', async (wrong, message) => {
    const call = AutoModelForCausalLM.fromPretrained('@q/nano', wrong as object);
    await expect(call).rejects.toThrow(ConfigError);
    await expect(call).rejects.toThrow(message);
  });

  it.each([
    [undefined, {}, /the folder is undefined/],
    ['', {}, /the folder is ""/],
    [new URL('file:///tmp/x'), {}, /the folder is an URL/],
    ['x', null, /must be an object/],
    ['x', { maxShardSize: 'big' }, /\[maxShardSize\] "big" is not a size/],
    ['x', { maxShardSize: 5n }, /\[maxShardSize\] 5n is not a size/],
    ['x', { onProgress: 1 }, /onProgress is 1/],
    ['x', { signal: {} }, /signal is an object/],
  ])('savePretrained(%o, %o)', async (folder, rest, message) => {
    await using model = await load();
    const call = model.savePretrained(folder as string, rest as object);
    await expect(call).rejects.toThrow(ConfigError);
    await expect(call).rejects.toThrow(message);
  });

  it('a list with nothing in it, wherever one is wanted', async () => {
    await using model = await load();
    const tokenizer = model.tokenizer!;
    const chatTemplate = '{{ messages }}';
    const calls: Record<string, () => unknown> = {
      'texts of batchEncode': () => tokenizer.batchEncode([]),
      'batch of batchDecode': () => tokenizer.batchDecode([]),
      'messages of applyChatTemplate': () => tokenizer.applyChatTemplate([], { chatTemplate }),
      'messages[1] of applyChatTemplate': () =>
        tokenizer.applyChatTemplate([[{ role: 'user', content: 'a' }], []], { chatTemplate }),
      'prompts of generate': () => model.generate({ prompts: [] }),
      'inputIds of generate': () => model.generate({ inputIds: [] }),
      'inputIds[0] of generate': () => model.generate({ inputIds: [[]] }),
      'messages of generate': () => model.generate({ messages: [], chatTemplate }),
      'seed of generate': () => model.generate({ inputIds: [[1]], seed: [], doSample: true }),
      'inputIds of forward': () => model.forward({ inputIds: [] }),
      'windows of score': () => model.score([]),
      'windows[0] of score': () => model.score([[]]),
    };
    for (const [name, call] of Object.entries(calls)) {
      const error: unknown = await (async () => call())().catch((reason: unknown) => reason);
      expect(error, name).toBeInstanceOf(ConfigError);
      expect((error as Error).message, name).toContain(name.split(' ')[0]);
    }
    expect(tokenizer.decode([])).toBe(''); // ids are a sequence, which may be empty
  });

  it('getMemoryFootprint', async () => {
    await using model = await load();
    for (const wrong of [null, 5, { returnBuffer: false }])
      expect(() => model.getMemoryFootprint(wrong as object)).toThrow(ConfigError);
  });

  it('numbers and values that no JSON has are named as they are', async () => {
    await using model = await load();
    const cyclic: unknown[] = [];
    cyclic.push(cyclic);
    const wrong: [object, RegExp][] = [
      [{ maxNewTokens: Infinity }, /maxNewTokens is Infinity/],
      [{ topP: -Infinity }, /topP is -Infinity/],
      [{ stopStrings: [5n] }, /stopStrings is \["5n"\]/],
      [{ stopStrings: cyclic }, /stopStrings is a list/],
      [{ stopStrings: () => 'a' }, /stopStrings is a function/],
      [{ numReturnSequences: 2 }, /greedy decoding gives one sequence; set doSample to true$/],
    ];
    for (const [more, message] of wrong) {
      const call = model.generate({ inputIds: [[1]], ...more });
      await expect(call).rejects.toThrow(ConfigError);
      await expect(call).rejects.toThrow(message);
    }
  });

  it('openDevice, planFor and fromConfig', async () => {
    const refused = async (call: () => unknown, message: RegExp) => {
      const run = (async () => call())();
      await expect(run).rejects.toThrow(ConfigError);
      await expect(run).rejects.toThrow(message);
    };
    await refused(() => openDevice(undefined as never), /the device is undefined/);
    await refused(() => openDevice(null as never), /the device is null/);
    await refused(() => openDevice('tpu'), /"tpu" is no device/);
    await refused(() => openDevice('cpu', { thread: 1 } as object), /did you mean threads/);
    await refused(() => openDevice('cpu', { threads: 0 }), /threads is 0/);
    await refused(() => openDevice('cpu', { eager: 'f8' as 'f16' }), /eager is "f8"/);
    await refused(() => openDevice('cpu', null as never), /must be an object/);
    const config = await AutoConfig.fromPretrained('@q/nano');
    await refused(() => planFor(undefined as never), /the config is undefined/);
    await refused(() => planFor(config, { devicemap: 'auto' } as object), /did you mean deviceMap/);
    await refused(() => planFor(config, { context: 0 }), /context is 0/);
    await refused(() => planFor(config, { batch: Number.NaN }), /batch is NaN/);
    await refused(() => AutoModelForCausalLM.fromConfig({} as never), /the config is/);
  });
});
