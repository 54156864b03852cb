// Generation of encoder-decoders: transformers' greedy sequences and texts, options, batches, sampling and errors.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  AutoModelForCausalLM,
  AutoModelForSeq2SeqLM,
  ConfigError,
  parseModelConfig,
  UnsupportedError,
  type Seq2SeqGenerateOptions,
  type Seq2SeqModel,
} from './index.js';
import { expectedRows, fixture, temporaryFolders, unpackCheckpoint } from './testing.js';

const temporary = temporaryFolders();
const tokenizer = fixture<Record<string, Record<string, string>>>('tokenizers')['t5-unigram'];

async function folderOf(changes: Record<string, object | undefined> = {}): Promise<string> {
  const folder = await unpackCheckpoint('t5', await temporary('t5'));
  for (const name of ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'])
    await writeFile(join(folder, name), tokenizer[name]);
  for (const [name, value] of Object.entries(changes)) await writeFile(join(folder, name), JSON.stringify(value));
  return folder;
}

const load = async (): Promise<Seq2SeqModel> => AutoModelForSeq2SeqLM.fromPretrained(await folderOf(), { threads: 1 });

interface Case {
  readonly name: string;
  readonly input_ids: number[][];
  readonly attention_mask: number[][];
  readonly generate: Record<string, unknown>;
  readonly sequences: number[][];
  readonly text: string[];
}

const camel = (name: string) => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
const optionsOf = ({ generate, input_ids, attention_mask }: Case): Seq2SeqGenerateOptions => ({
  ...(Object.fromEntries(Object.entries(generate).map(([key, value]) => [camel(key), value])) as object),
  inputIds: input_ids,
  attentionMask: attention_mask,
});

const { cases } = fixture<{ cases: Case[] }>('generation-t5');
// Options that this engine has; every other option must be refused.
const supported = new Set([
  'max_new_tokens',
  'max_length',
  'stop_strings',
  'repetition_penalty',
  'eos_token_id',
  'pad_token_id',
  'forced_bos_token_id',
  'forced_eos_token_id',
  'decoder_start_token_id',
]);
// Of several tokens to force none is chosen here.
const isRun = ({ generate }: Case) =>
  Object.keys(generate).every((key) => supported.has(key)) && !Array.isArray(generate.forced_eos_token_id);

describe('greedy generation as transformers', () => {
  it.each(cases.filter(isRun))('$name', async (test) => {
    await using model = await load();
    const { sequences, texts } = await model.generate(optionsOf(test));
    const pad = test.generate.pad_token_id ?? 0;
    test.sequences.forEach((row, i) => {
      expect(sequences[i]).toEqual(row.slice(0, sequences[i].length));
      expect(row.slice(sequences[i].length).every((id) => id === pad)).toBe(true);
    });
    // Python decodes padding that is no special token, and the stop string.
    const stop = test.generate.stop_strings as string[] | undefined;
    if (stop) expect(texts).toEqual(test.text.map((text) => text.slice(0, text.indexOf(stop[0]))));
    else if (pad === 0) expect(texts).toEqual(test.text);
  });

  it.each(cases.filter((test) => !isRun(test)))('$name is refused', async (test) => {
    await using model = await load();
    await expect(model.generate(optionsOf(test))).rejects.toThrow(UnsupportedError);
  });
});

describe('generate', () => {
  const [first] = cases;
  const inputIds = cases.find(({ input_ids }) => input_ids.length > 1)!.input_ids;

  it('reads prompts as the tokenizer has them, with the end token, and gives their texts', async () => {
    await using model = await load();
    const prompts = ['The people of Australia', 'two'];
    const encoded = prompts.map((prompt) => model.tokenizer!.encode(prompt));
    expect(encoded.every((ids) => ids.at(-1) === 1)).toBe(true);
    const { sequences, texts } = await model.generate({ prompts, maxNewTokens: 9 });
    expect(sequences).toEqual((await model.generate({ inputIds: encoded, maxNewTokens: 9 })).sequences);
    expect(texts).toEqual(sequences.map((ids) => model.tokenizer!.decode(ids, { skipSpecialTokens: true })));
    const [alone] = (await model.generate({ prompt: prompts[1], maxNewTokens: 9 })).sequences;
    expect(alone).toEqual(sequences[1]);
  });

  it('continues what the decoder is given, with the start token in front', async () => {
    await using model = await load();
    const [whole] = (await model.generate({ inputIds: [inputIds[0]], maxNewTokens: 8 })).sequences;
    const text = model.tokenizer!.decode(whole, { skipSpecialTokens: true });
    for (const begin of [whole.slice(0, 4), whole.slice(1, 4)]) {
      const given = { inputIds: [inputIds[0]], decoderInputIds: [begin], maxNewTokens: 5 };
      const { sequences, newTokens, texts } = await model.generate(given);
      expect(sequences).toEqual([whole]);
      expect(newTokens).toEqual([whole.slice(4)]);
      expect(model.tokenizer!.decode(whole.slice(1, 4)) + texts[0]).toBe(text);
    }
    const start = { decoderStartTokenId: 9, decoderInputIds: [[9, 450]], inputIds: [inputIds[0]], maxNewTokens: 2 };
    expect((await model.generate(start)).sequences[0].slice(0, 2)).toEqual([9, 450]);
  });

  it('samples the same tokens for a seed, alone and in a batch', async () => {
    await using model = await load();
    const options = { doSample: true, maxNewTokens: 10, topK: 0, eosTokenId: null };
    const seed = inputIds.map((_, i) => i);
    const { sequences } = await model.generate({ inputIds, seed, ...options });
    const [alone] = (await model.generate({ inputIds: [inputIds[1]], seed: 1, ...options })).sequences;
    expect(alone).toEqual(sequences[1]);
    const several = await model.generate({ inputIds: [inputIds[1]], seed: 1, numReturnSequences: 3, ...options });
    expect(several.sequences[0]).toEqual(alone);
    expect(new Set(several.sequences.map(String)).size).toBe(3);
  });

  it('takes the start token from config.json where generation_config.json does not say', async () => {
    const folder = await folderOf({ 'generation_config.json': { eos_token_id: 1 } });
    await using model = await AutoModelForSeq2SeqLM.fromPretrained(folder, { threads: 1 });
    const { sequences } = await model.generate(optionsOf(first));
    expect(sequences).toEqual(first.sequences);
  });

  it.each([
    [{ inputIds: [[]] }, ConfigError, /inputIds\[0\] is an empty list/],
    [{ inputIds: [[512]] }, ConfigError, /512 is no token id/],
    [{ inputIds: [[1]], decoderInputIds: [[0], [0]] }, ConfigError, /decoderInputIds has 2 lists/],
    [{ inputIds: [[1]], decoderInputIds: [0] }, ConfigError, /decoderInputIds is a flat list/],
    [{ inputIds: [[1]], decoderInputIds: [[600]] }, ConfigError, /decoderInputIds\[0\]\[0\]: 600/],
    [{ inputIds: [[1]], decoderStartTokenId: [0, 0] }, ConfigError, /decoderStartTokenId is a list of 2/],
    [{ inputIds: [[1]], decoderStartTokenId: 512 }, ConfigError, /decoderStartTokenId\[0\]: 512/],
    [{ inputIds: [[1]], forcedBosTokenId: 512 }, ConfigError, /forcedBosTokenId is 512/],
    [{ inputIds: [[1]], forcedEosTokenId: 512 }, ConfigError, /forcedEosTokenId is 512/],
    [{ inputIds: [[1]], forcedEosTokenId: [1, 2] }, UnsupportedError, /forcedEosTokenId is a list of 2/],
    [{ inputIds: [[1]], decoderInputId: [[0]] }, ConfigError, /decoderInputId/],
    [{ decoderInputIds: [[0]] }, ConfigError, /got 0 of inputIds/],
  ])('refuses %j', async (options, type, message) => {
    await using model = await load();
    const call = model.generate(options as Seq2SeqGenerateOptions);
    await expect(call).rejects.toThrow(type);
    await expect(call).rejects.toThrow(message);
  });
});

describe('the classes', () => {
  it('name each other where a model is of another kind', async () => {
    const folder = await folderOf();
    await expect(AutoModelForCausalLM.fromPretrained(folder)).rejects.toThrow(UnsupportedError);
    await expect(AutoModelForCausalLM.fromPretrained(folder)).rejects.toThrow(/AutoModelForSeq2SeqLM or AutoModel/);
    const llama = await unpackCheckpoint('llama', await temporary('llama'));
    await expect(AutoModelForSeq2SeqLM.fromPretrained(llama)).rejects.toThrow(/use AutoModelForCausalLM/);
    await using causal = await AutoModelForCausalLM.fromPretrained(llama, { threads: 1 });
    const options = { inputIds: [[1]], decoderInputIds: [[0]] } as object;
    await expect(causal.generate(options)).rejects.toThrow(/decoderInputIds/);
    await expect(causal.generate({ inputIds: [[1]], decoderStartTokenId: 3 })).rejects.toThrow(/decoderStartTokenId/);
    expect(() => causal.forward({ inputIds: [[1]], decoderInputIds: [[0]] })).toThrow(/one input of ids/);
  });

  const inputIds = [[5, 6]];
  it.each([
    [{ inputIds }, /decoderInputIds are missing/],
    [{ decoderInputIds: [[0]] }, /inputIds is undefined/],
    [{ inputIds, decoderInputIds: [[0], [0]] }, /as many rows/],
    [{ inputIds, decoderInputIds: [[0]], tokenTypeIds: [[0, 0]] }, /tokenTypeIds is given/],
    [{ inputIds, attentionMask: [[0, 0]], decoderInputIds: [[0]] }, /attentionMask leaves no token of row 0/],
    [{ inputIds, decoderInputIds: [[0]], decoderAttentionMask: [[0]] }, /decoderAttentionMask leaves no token/],
    [{ inputIds, decoderInputIds: [[0]], decoderAttentionMask: [[1, 1]] }, /decoderAttentionMask must hold/],
    [{ inputIds: [[5, 6, 7]], attentionMask: [[1, 0, 1]], decoderInputIds: [[0]] }, /attentionMask\[0\] has a gap/],
  ])('forward refuses %j', async (input, message) => {
    await using model = await load();
    expect(() => model.forward(input)).toThrow(ConfigError);
    expect(() => model.forward(input)).toThrow(message);
  });
});

it('takes no memory that grows with the square of the length: 32 heads at 4,096 tokens', async () => {
  const config = parseModelConfig({
    model_type: 't5',
    vocab_size: 64,
    d_model: 32,
    d_kv: 4,
    d_ff: 32,
    num_heads: 32,
    num_layers: 1,
    feed_forward_proj: 'relu',
  });
  await using model = await AutoModelForSeq2SeqLM.fromConfig(config, { torchDtype: 'float32' });
  const ids = (length: number) => [Array.from({ length }, (_, i) => i % 64)];
  const peakOf = async (length: number): Promise<number> => {
    const before = model.backend.memory().usedBytes;
    model.backend.resetPeak();
    using output = model.forward({ inputIds: ids(length), decoderInputIds: ids(length) });
    await output.logits.data();
    return model.backend.memory().peakBytes - before;
  };
  await peakOf(8);
  const [half, whole] = [await peakOf(2048), await peakOf(4096)];
  expect(whole).toBeLessThan(2.2 * half);
  expect(whole).toBeLessThan(32e6); // one [heads, length, length] table has 2.1e9
}, 60_000);

it('gives the states of the encoder once', async () => {
  await using model = await load();
  const inputIds = expectedRows('t5', 'input_ids');
  using past = model.createPast({ sequences: 2, maxLength: 3 });
  expect(() => model.forward({ decoderInputIds: [[0], [0]], past })).toThrow(/inputIds is undefined/);
  using output = model.forward({ inputIds, decoderInputIds: [[0], [0]], past });
  expect(output.encoderLastHiddenState.shape).toEqual([2, 17, 64]);
  expect(() => model.forward({ inputIds, decoderInputIds: [[0], [0]], past })).toThrow(/already/);
  expect(() => model.forward({ attentionMask: inputIds, decoderInputIds: [[0], [0]], past })).toThrow(/attentionMask/);
});
