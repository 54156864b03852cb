// Tokenizers against tokenizers 0.23 (through transformers): ids, texts, pairs, batches, prefixes and chats must match
// exactly.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { AutoTokenizer, ConfigError, TextStream, Tokenizer, type ChatMessage } from '../index.js';
import { fixture, temporaryFolders } from '../testing.js';
import { optionalTokenizer } from './load.js';

interface Vectors {
  readonly special_token_ids: Readonly<Record<string, number>>;
  readonly cases: readonly {
    text: string;
    ids: number[];
    ids_without_special: number[];
    decoded: string;
    decoded_skip_special: string;
  }[];
  readonly pairs: readonly { text: string; text_pair: string; ids: number[] }[];
  readonly batches: readonly {
    texts: string[];
    padding_side: 'left' | 'right';
    options: { padding: true | 'max_length'; max_length?: number; truncation?: boolean; pad_to_multiple_of?: number };
    input_ids: number[][];
    attention_mask: number[][];
  }[];
  readonly streams: readonly { ids: number[]; decoded_prefixes: string[]; decoded_single: string[] }[];
  readonly decode_random_ids: readonly { ids: number[]; decoded: string; decoded_skip_special: string }[];
  readonly chats?: readonly {
    messages: ChatMessage[];
    add_generation_prompt: boolean;
    rendered: string;
    ids: number[];
  }[];
}

const temporary = temporaryFolders();
const stored = fixture<Record<string, Record<string, string>>>('tokenizers');

async function load(name: string, how: string): Promise<Tokenizer> {
  const folder = await temporary(`${name} ${how}`);
  for (const [file, text] of Object.entries(stored[name]))
    if (file !== 'vectors.json') await writeFile(join(folder, file), text);
  return how === 'in parts' ? (await optionalTokenizer(folder, { small: 0 }))! : AutoTokenizer.fromPretrained(folder);
}

// Large files are loaded in parts; all must come out the same.
const loads = Object.keys(stored).flatMap(
  (name) =>
    [
      [name, 'at once'],
      [name, 'in parts'],
    ] as const,
);

describe.each(loads)('%s, %s', (name, how) => {
  const vectors = JSON.parse(stored[name]['vectors.json']) as Vectors;
  const tokenizer = load(name, how);

  it('encodes', async () => {
    const { cases } = vectors;
    const actual = await Promise.all(
      cases.map(async ({ text }) => ({
        text,
        ids: (await tokenizer).encode(text),
        plain: (await tokenizer).encode(text, { addSpecialTokens: false }),
      })),
    );
    expect(actual).toEqual(cases.map(({ text, ids, ids_without_special: plain }) => ({ text, ids, plain })));
  });

  it('encodes pairs', async () => {
    for (const { text, text_pair: pair, ids } of vectors.pairs)
      expect((await tokenizer).encode(text, { pair })).toEqual(ids);
  });

  it('decodes', async () => {
    for (const { ids, decoded, decoded_skip_special: skipped } of [...vectors.cases, ...vectors.decode_random_ids]) {
      expect((await tokenizer).decode(ids)).toBe(decoded);
      expect((await tokenizer).decode(ids, { skipSpecialTokens: true })).toBe(skipped);
    }
    const lists = vectors.decode_random_ids.map(({ ids }) => ids);
    expect((await tokenizer).batchDecode(lists)).toEqual(vectors.decode_random_ids.map(({ decoded }) => decoded));
  });

  it('decodes every prefix, and every id alone', async () => {
    for (const { ids, decoded_prefixes: prefixes, decoded_single: single } of vectors.streams) {
      const whole = await tokenizer;
      expect(ids.map((_, i) => whole.decode(ids.slice(0, i + 1), { skipSpecialTokens: true }))).toEqual(prefixes);
      expect(ids.map((id) => whole.decode([id], { skipSpecialTokens: true }))).toEqual(single);
    }
  });

  it('streams pieces that join to the whole', async () => {
    const whole = await tokenizer;
    for (const { ids } of [...vectors.streams, ...vectors.cases, ...vectors.decode_random_ids]) {
      const stream = new TextStream(whole);
      const pieces = [...ids.map((id) => stream.push(id)), stream.end()];
      expect(pieces.join('')).toBe(whole.decode(ids, { skipSpecialTokens: true }));
    }
  });

  it('makes padded batches', async () => {
    for (const {
      texts,
      padding_side: paddingSide,
      options,
      input_ids: inputIds,
      attention_mask: attentionMask,
    } of vectors.batches) {
      const { padding, max_length: maxLength, truncation, pad_to_multiple_of: padToMultipleOf } = options;
      const own = {
        paddingSide,
        padding: padding === 'max_length' ? 'maxLength' : 'longest',
        maxLength,
        truncation,
        padToMultipleOf,
      } as const;
      expect((await tokenizer).batchEncode(texts, own)).toEqual({ inputIds, attentionMask });
    }
  });

  it('knows its special tokens', async () => {
    const { special_token_ids: ids } = vectors;
    const { bosTokenId, eosTokenId, padTokenId } = await tokenizer;
    expect({ bosTokenId, eosTokenId, padTokenId }).toEqual({
      bosTokenId: ids.bos_token,
      eosTokenId: ids.eos_token,
      padTokenId: ids.pad_token,
    });
  });

  it('renders chats', async () => {
    for (const { messages, add_generation_prompt: addGenerationPrompt, rendered, ids } of vectors.chats ?? []) {
      const text = (await tokenizer).applyChatTemplate(messages, { addGenerationPrompt });
      expect(text).toBe(rendered);
      expect((await tokenizer).encode(text, { addSpecialTokens: false })).toEqual(ids);
    }
    if (!vectors.chats)
      await expect(
        (async () => (await tokenizer).applyChatTemplate([{ role: 'user', content: 'hi' }]))(),
      ).rejects.toThrow(ConfigError);
  });
});

describe('a large tokenizer.json', () => {
  const letters = Array.from({ length: 26 }, (_, i) => String.fromCharCode(97 + i));
  const pairs = letters.flatMap((a) => letters.map((b) => [a, b]));
  const merges = [...pairs, ...pairs.flatMap(([a, b]) => letters.map((c) => [a + b, c]))];
  const vocab = Object.fromEntries(
    ['<unk>', ...letters, ...merges.map(([a, b]) => a + b)].map((token, id) => [token, id]),
  );
  const added = [
    { id: 1, content: 'a', special: false, normalized: false },
    { id: 60_000, content: '<end>', special: true, normalized: false },
  ];
  const model = { type: 'BPE', unk_token: '<unk>', vocab, merges };
  const json = {
    version: '1.0',
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    model,
  };

  it('is loaded in parts, and works as one loaded at once', async () => {
    const folder = await temporary('large');
    await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(json));
    const [inParts, atOnce] = [await AutoTokenizer.fromPretrained(folder), new Tokenizer(structuredClone(json), {})];
    expect(inParts.vocabSize).toBe(atOnce.vocabSize);
    for (const text of ['thequickbrownfox', 'a', 'xyzzy<end>abc', 'with?unknown!', '']) {
      expect(inParts.encode(text)).toEqual(atOnce.encode(text));
      expect(inParts.decode(inParts.encode(text))).toBe(atOnce.decode(atOnce.encode(text)));
    }
  });

  it.each([
    ['not JSON', `${JSON.stringify(json)}}`],
    ['no object', `[${JSON.stringify(json)}]`],
  ])('that is %s is refused by name', async (name, text) => {
    const folder = await temporary(name);
    await writeFile(join(folder, 'tokenizer.json'), text);
    await expect(AutoTokenizer.fromPretrained(folder)).rejects.toThrow(/tokenizer\.json (is not valid JSON|must hold)/);
  });
});

describe('special tokens as text like any other', () => {
  // encode(text, split_special_tokens=True) of transformers 5.17, and what a pair with the first special token adds
  const cases: [name: string, text: string, ids: number[], pair: number[]][] = [
    [
      'bert-wordpiece',
      'a[UNK]b [PAD]  [SEP]c',
      [2, 35, 33, 151, 116, 34, 36, 33, 50, 192, 34, 33, 239, 121, 34, 37, 3],
      [33, 151, 116, 34, 3],
    ],
    [
      'llama-bpe-bytefallback',
      'a<s>b <unk>  </s>c',
      [1, 261, 63, 495, 65, 478, 510, 63, 263, 487, 65, 510, 510, 63, 433, 495, 65, 479],
      [1, 510, 63, 495, 65],
    ],
    [
      'qwen2-bytelevel-bpe',
      'a<|im_end|>b <|im_start|>  <|endoftext|>c',
      [
        64, 27, 91, 348, 62, 68, 277, 91, 29, 65, 220, 27, 91, 348, 62, 310, 431, 91, 29, 220, 220, 27, 91, 68, 277, 78,
        69, 83, 68, 87, 83, 91, 29, 66,
      ],
      [27, 91, 348, 62, 68, 277, 91, 29],
    ],
    ['t5-unigram', 'a</s>b <pad>  <unk>c', [27, 1, 48, 3, 0, 3, 2, 18, 1], [3, 1, 1]],
  ];

  it.each(cases)('%s', async (name, text, ids, ofPair) => {
    const tokenizer = await load(name, 'split');
    const pair = /(<[^>]*>|\[[^\]]*\])/.exec(text)![0];
    const own = tokenizer.encode(text);
    expect(tokenizer.encode(text, { splitSpecialTokens: true })).toEqual(ids);
    expect(tokenizer.encode(text, { splitSpecialTokens: true, pair })).toEqual([...ids, ...ofPair]);
    expect(tokenizer.batchEncode([text], { splitSpecialTokens: true }).inputIds).toEqual([ids]);
    const folder = await temporary(name);
    const files = { ...stored[name] };
    const config = JSON.parse(files['tokenizer_config.json']) as object;
    files['tokenizer_config.json'] = JSON.stringify({ ...config, split_special_tokens: true });
    for (const [file, content] of Object.entries(files)) await writeFile(join(folder, file), content);
    const splitting = await AutoTokenizer.fromPretrained(folder);
    expect(splitting.encode(text)).toEqual(ids);
    expect(splitting.encode(text, { splitSpecialTokens: false })).toEqual(own);
    const messages = [{ role: 'user', content: text }];
    const chatTemplate = '{{ messages[0].content }}';
    const chat = splitting.applyChatTemplate(messages, { tokenize: true, chatTemplate });
    expect(chat).toEqual(splitting.encode(text, { addSpecialTokens: false }));
    expect(() => tokenizer.encode(text, { splitSpecialTokens: 1 as never })).toThrow(/splitSpecialTokens is 1/);
  });
});
