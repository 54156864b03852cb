// Generation: transformers' greedy sequences, options, batches, sampling, streaming, stopping, abort and errors.
import { describe, expect, it } from 'vitest';
import {
  AutoModelForCausalLM,
  ConfigError,
  UnsupportedError,
  type CausalModel,
  type GenerateOptions,
  type GenerationStep,
} from './index.js';
import { expectedRows, fixture, temporaryFolders, unpackCheckpoint } from './testing.js';

const temporary = temporaryFolders();
const load = async (name = 'llama'): Promise<CausalModel> =>
  AutoModelForCausalLM.fromPretrained(await unpackCheckpoint(name, await temporary(name)), { threads: 1 });

interface Case {
  readonly name: string;
  readonly input_ids: number[][] | null;
  readonly attention_mask: number[][] | null;
  readonly generate: Record<string, unknown>;
  readonly sequences: number[][];
  readonly new_tokens: number[][];
  readonly text: string[];
}

const camel = (name: string) => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
const optionsOf = ({ generate, input_ids, attention_mask }: Case): GenerateOptions => ({
  ...(Object.fromEntries(Object.entries(generate).map(([key, value]) => [camel(key), value])) as GenerateOptions),
  inputIds: input_ids!,
  ...(attention_mask && { attentionMask: attention_mask }),
});

const { cases } = fixture<{ cases: Case[] }>('generation');
// Options that this engine has; every other option must be refused. `use_cache: false` changes no result.
const supported = new Set([
  'max_new_tokens',
  'stop_strings',
  'max_length',
  'repetition_penalty',
  'eos_token_id',
  'pad_token_id',
  'forced_bos_token_id',
  'forced_eos_token_id',
]);
// Of several tokens to force none is chosen here.
const isSupported = ([key, value]: [string, unknown]) =>
  supported.has(key) && !(key === 'forced_eos_token_id' && Array.isArray(value));
const runs = cases.filter(({ generate, input_ids }) => input_ids && Object.entries(generate).every(isSupported));
const refused = cases.filter(({ generate }) => !Object.entries(generate).every(isSupported));
const withoutInput = cases.filter(({ input_ids }) => !input_ids);

describe('greedy generation as transformers', () => {
  it('covers every case', () => expect(runs.length + refused.length + withoutInput.length).toBe(cases.length));

  it.each(runs)('$name', async (test) => {
    await using model = await load();
    const result = await model.generate(optionsOf(test));
    // Python fills rows that ended early with the padding token.
    const trimmed = test.new_tokens.map((row, i) => row.slice(0, result.newTokens[i].length));
    expect(result.newTokens).toEqual(trimmed);
    const pad = (test.generate.pad_token_id as number | undefined) ?? 0;
    test.new_tokens.forEach((row, i) =>
      expect(row.slice(result.newTokens[i].length).every((id) => id === pad)).toBe(true),
    );
    expect(result.newTokens.some((row, i) => row.length === test.new_tokens[i].length)).toBe(true);
    const stops = [test.generate.stop_strings ?? []].flat() as string[];
    result.texts.forEach((text, i) => {
      const skip = { skipSpecialTokens: true };
      const alone = model.tokenizer!.decode(result.newTokens[i], skip);
      if (trimmed[i].length === test.new_tokens[i].length) expect(alone).toBe(test.text[i]);
      const prompt = result.sequences[i].slice(0, -result.newTokens[i].length);
      const whole = model
        .tokenizer!.decode(result.sequences[i], skip)
        .slice(model.tokenizer!.decode(prompt, skip).length);
      // Python keeps a stop string in the text, Q ends before it.
      if (result.finishReasons[i] === 'stop') expect(stops.some((stop) => whole.startsWith(text + stop))).toBe(true);
      else expect(text).toBe(whole);
    });
  });

  it.each(refused)('refuses the options of $name', async (test) => {
    await using model = await load();
    await expect(model.generate(optionsOf(test))).rejects.toThrow(UnsupportedError);
  });

  it.each(withoutInput)('refuses $name: a prompt is needed', async (test) => {
    await using model = await load();
    const options = { maxNewTokens: test.generate.max_new_tokens as number };
    await expect(model.generate(options)).rejects.toThrow(ConfigError);
  });
});

const prompts = [
  [1, 324, 310, 353],
  [1, 346],
  [
    1, 372, 281, 321, 289, 283, 290, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
    25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35,
  ],
  [1],
];

describe('batches', () => {
  it.each(['llama', 'mistral', 'qwen2', 'bnb-nf4', 'bnb-int8'])(
    '%s: prompts of different lengths give the tokens that each gives alone',
    async (name) => {
      await using model = await load(name);
      const options = { maxNewTokens: 40, eosTokenId: null, doSample: false } as const;
      const { newTokens } = await model.generate({ inputIds: prompts, ...options });
      for (const [i, prompt] of prompts.entries())
        expect((await model.generate({ inputIds: [prompt], ...options })).newTokens).toEqual([newTokens[i]]);
    },
  );

  it('runs more prompts than decode together, and prompts longer than a chunk of prefill', async () => {
    const folder = await unpackCheckpoint('bnb-fp16', await temporary());
    await using model = await AutoModelForCausalLM.fromPretrained(folder, { threads: 1, maxBatchSize: 2 });
    const many = Array.from({ length: 7 }, (_, i) =>
      Array.from({ length: 100 + 20 * i }, (_, j) => (i * 37 + j * 11) % 500),
    );
    const { newTokens } = await model.generate({ inputIds: many, maxNewTokens: 12, eosTokenId: null });
    await using wide = await AutoModelForCausalLM.fromPretrained(folder, { threads: 1, maxBatchSize: 7 });
    expect((await wide.generate({ inputIds: many, maxNewTokens: 12, eosTokenId: null })).newTokens).toEqual(newTokens);
    for (const i of [0, 6])
      expect((await wide.generate({ inputIds: [many[i]], maxNewTokens: 12, eosTokenId: null })).newTokens).toEqual([
        newTokens[i],
      ]);
  });

  it.each(['bnb-nf4', 'bnb-int8', 'bnb-fp16'])('%s: gives the same bits with one thread and with two', async (name) => {
    const folder = await unpackCheckpoint(name, await temporary(name));
    const results = [];
    for (const threads of [1, 2]) {
      await using model = await AutoModelForCausalLM.fromPretrained(folder, { threads });
      using output = model.forward({ inputIds: [Array.from({ length: 90 }, (_, i) => (i * 13) % 500)] });
      const { newTokens } = await model.generate({ inputIds: prompts, maxNewTokens: 50, eosTokenId: null });
      results.push({ logits: await output.logits.data(), newTokens });
    }
    expect(results[1]).toEqual(results[0]);
  });

  it('gives every requested sequence of a prompt', async () => {
    await using model = await load();
    const options = {
      maxNewTokens: 12,
      doSample: true,
      temperature: 1.5,
      seed: 7,
      numReturnSequences: 3,
      eosTokenId: null,
    } as const;
    const { newTokens } = await model.generate({ inputIds: prompts.slice(0, 2), ...options });
    expect(newTokens.length).toBe(6);
    expect(new Set(newTokens.map(String)).size).toBe(6);
    expect((await model.generate({ inputIds: prompts.slice(0, 2), ...options })).newTokens).toEqual(newTokens);
  });
});

describe('messages', () => {
  const chatTemplate = '{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}';
  const messages = [{ role: 'user', content: 'the cat' }];
  const prefix = async (options: GenerateOptions) => {
    await using model = await load();
    const { sequences } = await model.generate({ ...options, maxNewTokens: 1 });
    return sequences.map((ids) => ids.slice(0, -1));
  };

  it('have the begin token once, as prompts have, rendered or not', async () => {
    const [plain] = await prefix({ prompt: 'the cat' });
    expect(plain[0]).toBe(1);
    expect(await prefix({ messages, chatTemplate })).toEqual([plain]);
    expect(await prefix({ messages: [messages, messages], chatTemplate })).toEqual([plain, plain]);
    expect(await prefix({ prompts: ['<s>the cat', 'the cat'] })).toEqual([plain, plain]);
    expect(await prefix({ prompt: 'the cat', addSpecialTokens: false })).toEqual([plain.slice(1)]);
  });

  it.each<[GenerateOptions, RegExp]>([
    [{ messages: [], chatTemplate }, /messages is empty/],
    [{ messages, prompt: 'x' }, /got 2 of inputIds, prompt, prompts and messages/],
    [{ prompt: 'x', chatTemplate }, /chatTemplate goes with messages/],
    [{ prompt: 'x', tools: [] }, /tools goes with messages/],
    [{ messages, chatTemplate, addSpecialTokens: true }, /addSpecialTokens goes with prompt/],
    [{ inputIds: [[1]], addSpecialTokens: true }, /addSpecialTokens goes with prompt/],
    [{ messages, chatTemplate: "{{ raise_exception('no') }}" }, /refuses these messages: no/],
  ])('are refused: %o', async (options, message) => {
    await using model = await load();
    const run = async () => model.generate(options);
    await expect(run()).rejects.toThrow(message);
    await expect(run()).rejects.toThrow(ConfigError);
  });
});

describe('sampling', () => {
  const options = {
    maxNewTokens: 24,
    doSample: true,
    temperature: 0.9,
    topK: 40,
    topP: 0.95,
    eosTokenId: null,
  } as const;

  it('gives the same tokens for the same seed and others for another', async () => {
    await using model = await load();
    const run = async (seed: number) =>
      (await model.generate({ inputIds: [prompts[0]], ...options, seed })).newTokens[0];
    expect(await run(3)).toEqual(await run(3));
    expect(await run(3)).not.toEqual(await run(4));
    expect(await run(3 + 2 ** 40)).not.toEqual(await run(3));
  });

  it('does not depend on the neighbours in the batch', async () => {
    await using model = await load();
    const {
      newTokens: [alone],
    } = await model.generate({ inputIds: [prompts[0]], ...options, seed: 11 });
    const { newTokens } = await model.generate({ inputIds: prompts, ...options, seed: 11 });
    expect(newTokens[0]).toEqual(alone);
  });

  it('draws the greedy tokens when only one token may be drawn', async () => {
    await using model = await load();
    const greedy = await model.generate({ inputIds: prompts, maxNewTokens: 16, eosTokenId: null });
    for (const only of [{ topK: 1 }, { topP: 1e-6 }, { minP: 1 }, { temperature: 1e-4 }]) {
      const drawn = await model.generate({
        inputIds: prompts,
        maxNewTokens: 16,
        eosTokenId: null,
        doSample: true,
        ...only,
      });
      expect(drawn.newTokens).toEqual(greedy.newTokens);
    }
  });
});

describe('streaming', () => {
  it('yields the tokens in order, with statistics on the last one', async () => {
    await using model = await load();
    const steps: GenerationStep[] = [];
    for await (const step of model.generate({ inputIds: prompts, maxNewTokens: 9, eosTokenId: null })) steps.push(step);
    expect(steps.length).toBe(9 * prompts.length);
    prompts.forEach((_, sequence) => {
      const own = steps.filter((step) => step.sequence === sequence);
      expect(own.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
      expect(own.map(({ finishReason }) => finishReason)).toEqual([
        ...Array.from({ length: 8 }, () => undefined),
        'length',
      ]);
    });
    expect(steps.filter(({ stats }) => stats).length).toBe(1);
    const { stats } = steps[steps.length - 1];
    expect(stats).toMatchObject({ promptTokens: prompts.flat().length, newTokens: steps.length });
    expect(stats!.prefillTokensPerSecond).toBeGreaterThan(0);
    expect(stats!.decodeTokensPerSecond).toBeGreaterThan(0);
    expect(stats!.peakBytes).toBeGreaterThan(0);
  });

  it('gives pieces that join to the decoded whole', async () => {
    await using model = await load();
    for (const ids of prompts) {
      const pieces: string[] = [];
      const tokens: number[] = [];
      for await (const { text, tokenId } of model.generate({
        inputIds: [ids],
        maxNewTokens: 60,
        eosTokenId: null,
        doSample: true,
        temperature: 2,
        seed: 5,
      })) {
        pieces.push(text);
        tokens.push(tokenId);
      }
      expect(pieces.join('')).toBe(model.tokenizer!.decode(tokens, { skipSpecialTokens: true }));
    }
  });

  it('ends at an end token, and gives it', async () => {
    await using model = await load();
    const {
      newTokens: [all],
    } = await model.generate({ inputIds: [prompts[0]], maxNewTokens: 12, eosTokenId: null });
    const end = all[5];
    const { newTokens, finishReasons } = await model.generate({
      inputIds: [prompts[0]],
      maxNewTokens: 12,
      eosTokenId: [509, end],
    });
    expect(newTokens[0]).toEqual(all.slice(0, all.indexOf(end) + 1));
    expect(finishReasons).toEqual(['eos']);
  });

  it('ends before a stop string, also one that spans tokens', async () => {
    await using model = await load();
    const options = { prompt: 'Hello', maxNewTokens: 40, eosTokenId: null };
    const { text } = await model.generate(options);
    for (const [from, length] of [
      [4, 1],
      [6, 5],
      [11, 9],
    ]) {
      const stop = text.slice(from, from + length);
      const pieces: string[] = [];
      let reason;
      for await (const step of model.generate({ ...options, stopStrings: [stop, 'never there'] })) {
        pieces.push(step.text);
        reason = step.finishReason;
      }
      expect(pieces.join('')).toBe(text.slice(0, text.indexOf(stop)));
      expect(reason).toBe('stop');
    }
    expect((await model.generate({ ...options, stopStrings: 'never there' })).text).toBe(text);
  });
});

describe('leaving early', () => {
  const options = { inputIds: prompts, maxNewTokens: 80, eosTokenId: null };

  it('ends within one step of an abort, with its reason, and frees everything', async () => {
    await using model = await load();
    const { newTokens } = await model.generate(options);
    const before = model.backend.memory().usedBytes;
    for (const after of [1, 3, prompts.length, prompts.length + 1, 50]) {
      const controller = new AbortController();
      const reason = new Error('enough');
      let seen = 0;
      const run = async () => {
        for await (const { sequence, tokenId, index } of model.generate({ ...options, signal: controller.signal })) {
          expect(tokenId).toBe(newTokens[sequence][index]);
          seen += 1;
          if (seen === after) controller.abort(reason);
        }
      };
      await expect(run()).rejects.toBe(reason);
      expect(seen - after).toBeLessThan(prompts.length);
      expect(model.backend.memory().usedBytes).toBe(before);
    }
    expect((await model.generate(options)).newTokens).toEqual(newTokens);
  });

  it('does not begin when the signal is aborted already', async () => {
    await using model = await load();
    const before = model.backend.memory().usedBytes;
    await expect(
      (async () => model.generate({ ...options, signal: AbortSignal.abort(new Error('before')) }))(),
    ).rejects.toThrow('before');
    expect(model.backend.memory().usedBytes).toBe(before);
  });

  it('frees everything when the loop is left', async () => {
    await using model = await load();
    const { newTokens } = await model.generate(options);
    const before = model.backend.memory().usedBytes;
    for (const after of [1, 2, 5, 30]) {
      let seen = 0;
      for await (const _ of model.generate(options)) if (++seen === after) break;
      expect(model.backend.memory().usedBytes).toBe(before);
    }
    expect((await model.generate(options)).newTokens).toEqual(newTokens);
  });

  it('refuses a second start of the same generation', async () => {
    await using model = await load();
    const first = model.generate(options);
    const steps = first[Symbol.asyncIterator]();
    await steps.next();
    await steps.return(undefined);
    await expect(first).rejects.toThrow(/already started/);
    const again = first[Symbol.asyncIterator]();
    await expect(again.next()).rejects.toThrow(/already started/);
    expect((await model.generate(options)).newTokens.length).toBe(prompts.length);
  });
});

describe('errors', () => {
  const cases: [string, GenerateOptions, RegExp][] = [
    ['no prompt', {}, /0 of inputIds, prompt, prompts and messages/],
    ['two prompts', { prompt: 'a', prompts: ['b'] }, /2 of inputIds/],
    ['an unknown option', { prompt: 'a', maxNewToken: 3 } as GenerateOptions, /maxNewTokens/],
    ['an option in snake case', { prompt: 'a', max_new_tokens: 3 } as GenerateOptions, /maxNewTokens/],
    ['a negative seed', { prompt: 'a', seed: -1 }, /seed/],
    ['a mask of another shape', { inputIds: [[1, 2]], attentionMask: [[1]] }, /attentionMask/],
    ['a mask beside a text', { prompt: 'a', attentionMask: [[1]] }, /attentionMask/],
    ['a prompt as long as maxLength', { inputIds: [[1, 2, 3]], maxLength: 3 }, /maxLength is 3/],
    ['a temperature of zero', { prompt: 'a', doSample: true, temperature: 0 }, /temperature/],
    ['a topP above one', { prompt: 'a', doSample: true, topP: 1.5 }, /top_?p/i],
    ['no tokens wanted', { prompt: 'a', maxNewTokens: 0 }, /max_?new_?tokens/i],
  ];

  it.each(cases)('%s', async (_, options, message) => {
    await using model = await load();
    await expect((async () => model.generate(options))()).rejects.toSatisfy(
      (error) => error instanceof ConfigError && message.test(error.message),
    );
  });

  it.each([
    ['an id outside the vocabulary', { inputIds: [[1, 512]] }, /512 is no token id/],
    ['a negative id', { inputIds: [[-1]] }, /-1 is no token id/],
    ['a fraction', { inputIds: [[1.5]] }, /1.5 is no token id/],
    ['an empty prompt', { inputIds: [[]] }, /empty list/],
    [
      'a prompt that leaves no room',
      { inputIds: [Array.from({ length: 120 }, () => 5)], maxNewTokens: 20 },
      /reaches 128/,
    ],
  ] as [string, GenerateOptions, RegExp][])('%s', async (_, options, message) => {
    await using model = await load();
    await expect((async () => model.generate({ maxNewTokens: 4, ...options }))()).rejects.toSatisfy(
      (error) => error instanceof ConfigError && message.test(error.message),
    );
    expect((await model.generate({ inputIds: [[1]], maxNewTokens: 1 })).newTokens.length).toBe(1);
  });

  it('names the nearest option of fromPretrained', async () => {
    const folder = await unpackCheckpoint('llama', await temporary());
    await expect(AutoModelForCausalLM.fromPretrained(folder, { loadIn4Bit: true } as object)).rejects.toThrow(
      /loadIn4bit/,
    );
    await expect(AutoModelForCausalLM.fromPretrained(folder, { loadIn4bit: true, loadIn8bit: true })).rejects.toThrow(
      ConfigError,
    );
    await expect(AutoModelForCausalLM.fromPretrained(folder, { torchDtype: 'float8' })).rejects.toThrow(/float8/);
    await expect(AutoModelForCausalLM.fromPretrained(folder, { numerics: 'lazy' as 'eager' })).rejects.toThrow(
      /numerics is "lazy".*"fused" or "eager"/s,
    );
  });

  it('refuses a forward pass of ids outside the vocabulary', async () => {
    await using model = await load();
    await expect(async () => {
      using output = model.forward({ inputIds: [[1, 9999]] });
      await output.logits.data();
    }).rejects.toThrow(/9999/);
    const row = expectedRows('llama', 'input_ids')[0];
    using output = model.forward({ inputIds: [row] });
    expect((await output.logits.data()).length).toBe(row.length * 512);
  });
});
