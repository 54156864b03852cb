// Tokenizers from whatever files a folder has, against transformers 5.17: SentencePiece models, vocabularies with
// merges and word lists for many Python classes, and special tokens that stand in several files.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { AutoTokenizer, CheckpointError, ConfigError, UnsupportedError } from '../index.js';
import { fixture, temporaryFolders } from '../testing.js';

interface Folder {
  /** Contents by name; those of `.model` in hexadecimal. */
  readonly files: Readonly<Record<string, string>>;
  readonly expected: {
    readonly special: Readonly<Record<string, string>>;
    readonly bos: number | null;
    readonly eos: number | null;
    readonly pad: number | null;
    readonly side: string;
    readonly len: number;
    readonly cases: readonly {
      text: string;
      ids: number[];
      plain: number[];
      dec: string;
      skip: string;
      pair: number[] | null;
    }[];
  };
}

const stored = fixture<{ vocabularies: Record<string, Folder>; special: Record<string, Folder> }>('tokenizer-files');
const temporary = temporaryFolders();

async function folderOf(files: Readonly<Record<string, string | Buffer | object>>): Promise<string> {
  const folder = await temporary('tokenizer');
  for (const [name, content] of Object.entries(files)) {
    const bytes =
      typeof content === 'string'
        ? Buffer.from(content, name.endsWith('.model') ? 'hex' : 'utf8')
        : Buffer.isBuffer(content)
          ? content
          : JSON.stringify(content);
    await writeFile(join(folder, name), bytes);
  }
  return folder;
}

const load = async (files: Readonly<Record<string, string | Buffer | object>>) =>
  AutoTokenizer.fromPretrained(await folderOf(files));

describe.each([...Object.entries(stored.vocabularies), ...Object.entries(stored.special)])('%s', (name, folder) => {
  const { files, expected } = folder;

  it('has the special tokens that Python finds', async () => {
    const tokenizer = await load(files);
    expect(tokenizer.specialTokens).toEqual(expected.special);
    expect(tokenizer.vocabSize).toBe(expected.len);
    expect(tokenizer.paddingSide).toBe(expected.side);
    if (name === 'nothing') return; // config.json names an end token there, which Python does not look at
    expect([tokenizer.bosTokenId ?? null, tokenizer.eosTokenId ?? null]).toEqual([expected.bos, expected.eos]);
    expect(tokenizer.padTokenId ?? null).toBe(expected.pad ?? expected.eos);
  });

  it('encodes and decodes as Python does', async () => {
    const tokenizer = await load(files);
    for (const { text, ids, plain, dec, skip, pair } of expected.cases) {
      expect(tokenizer.encode(text), JSON.stringify(text)).toEqual(ids);
      expect(tokenizer.encode(text, { addSpecialTokens: false })).toEqual(plain);
      expect(tokenizer.decode(ids)).toBe(dec);
      expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(skip);
      if (pair) expect(tokenizer.encode(text, { pair: 'and pair' })).toEqual(pair);
    }
  });
});

describe('special tokens', () => {
  const json = { added_tokens: [], model: { type: 'WordLevel', vocab: { a: 0, '</s>': 1 }, unk_token: 'a' } };

  it('have ids of config.json where nothing of the tokenizer names them', async () => {
    const config = { eos_token_id: [1, 0], bos_token_id: 0 };
    const tokenizer = await load({ 'tokenizer.json': json, 'config.json': config });
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId]).toEqual([0, 1]);
    const named = await load({
      'tokenizer.json': json,
      'config.json': config,
      'tokenizer_config.json': { bos_token: null, eos_token: 'a' },
    });
    expect([named.bosTokenId, named.eosTokenId]).toEqual([undefined, 0]);
  });

  it.each([
    ['tokenizer_config.json', { eos_token: 5 }, /tokenizer_config.json: eos_token is 5/],
    ['tokenizer_config.json', { added_tokens_decoder: { x: { content: 'b' } } }, /added_tokens_decoder.x/],
    ['tokenizer_config.json', { added_tokens_decoder: { 2: 'b' } }, /added_tokens_decoder/],
    ['tokenizer_config.json', { extra_special_tokens: 'b' }, /extra_special_tokens/],
    ['special_tokens_map.json', { pad_token: ['b'] }, /special_tokens_map.json: pad_token/],
    ['added_tokens.json', { b: 1.5 }, /added_tokens.json: b is 1.5/],
    ['special_tokens_map.json', 'null', /special_tokens_map.json must hold/],
  ])('of a wrong kind in %s are refused: %j', async (file, content, message) => {
    const error = load({ 'tokenizer.json': json, [file]: content });
    await expect(error).rejects.toThrow(message);
    await expect(error).rejects.toThrow(CheckpointError);
  });
});

describe('vocabulary files that cannot be read', () => {
  const model = Buffer.from(stored.vocabularies.llama.files['tokenizer.model'], 'hex');

  it.each([
    ['text', Buffer.from('a SentencePiece model')],
    ['nothing', Buffer.alloc(0)],
    ['half a model', model.subarray(0, model.length / 2)],
    ['a length beyond the end', Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f])],
    ['an endless number', Buffer.alloc(20, 0xff)],
  ])('tokenizer.model of %s is named', async (_, bytes) => {
    const error = load({ 'tokenizer.model': bytes, 'tokenizer_config.json': { tokenizer_class: 'LlamaTokenizer' } });
    await expect(error).rejects.toThrow(/tokenizer\.model is not a SentencePiece model/);
    await expect(error).rejects.toThrow(CheckpointError);
  });

  it('of tiktoken, and of classes that are not made of them, are unsupported', async () => {
    await expect(load({ 'tokenizer.model': Buffer.from('IQ== 0\nIg== 1\n') })).rejects.toThrow(/tiktoken/);
    const error = load({ 'tokenizer.model': model, 'tokenizer_config.json': { tokenizer_class: 'XyzTokenizer' } });
    await expect(error).rejects.toThrow(UnsupportedError);
    await expect(error).rejects.toThrow(/XyzTokenizer.*save_pretrained/);
  });

  it.each(['tokenizer.json', 'vocab.txt', 'tokenizer_config.json', 'special_tokens_map.json'])(
    'Git LFS pointers and HTML pages for %s are named',
    async (name) => {
      const files: Record<string, object> = { 'config.json': { model_type: 'bert' } };
      if (name.endsWith('config.json') || name.endsWith('map.json')) files['tokenizer.json'] = {};
      const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'b'.repeat(64)}\nsize 9\n`;
      await expect(load({ ...files, [name]: pointer })).rejects.toThrow(`${name} is a Git LFS pointer`);
      await expect(load({ ...files, [name]: '<!DOCTYPE html><html></html>' })).rejects.toThrow(
        `${name} is an HTML page`,
      );
    },
  );

  it('half of a pair is said to lack the other', async () => {
    const config = { tokenizer_class: 'GPT2Tokenizer' };
    const half = (files: object) => load({ 'tokenizer_config.json': config, ...files });
    await expect(half({ 'vocab.json': { a: 0 } })).rejects.toThrow(/vocab\.json is there, and neither merges\.txt nor/);
    await expect(half({ 'merges.txt': '#version: 0.2\n' })).rejects.toThrow(
      /merges\.txt is there, and neither vocab\.json/,
    );
    await expect(half({ 'vocab.json': { a: 0 } })).rejects.toThrow(CheckpointError);
  });

  it('a folder without any is said to lack tokenizer.json', async () => {
    await expect(load({ 'config.json': '{}' })).rejects.toThrow(/tokenizer\.json is missing/);
  });
});

describe('wrong inputs', () => {
  const tokenizer = load(stored.vocabularies.gpt2.files);

  it.each<[string, (t: Awaited<typeof tokenizer>) => unknown, RegExp]>([
    ['encode(undefined)', (t) => t.encode(undefined as never), /\[encode\] text is undefined/],
    ['encode(5)', (t) => t.encode(5 as never), /text is 5, not a text/],
    ['encode([text])', (t) => t.encode(['a'] as never), /use batchEncode/],
    ['encode with pair 5', (t) => t.encode('a', { pair: 5 as never }), /pair is 5/],
    [
      'encode with a word for a flag',
      (t) => t.encode('a', { addSpecialTokens: 'no' as never }),
      /addSpecialTokens is "no"/,
    ],
    ['decode(5)', (t) => t.decode(5 as never), /give \[5\]/],
    ['decode([[1]])', (t) => t.decode([[1]] as never), /use batchDecode/],
    ['decode([1n])', (t) => t.decode([1n] as never), /ids\[0\] is 1n.*ids\.map\(Number\)/],
    ['decode(BigInt64Array)', (t) => t.decode(new BigInt64Array(1) as never), /not a list of token ids/],
    ['decode([1.5])', (t) => t.decode([1.5]), /ids\[0\] is 1\.5/],
    ['decode([-1])', (t) => t.decode([-1]), /ids\[0\] is -1/],
    ['decode([NaN])', (t) => t.decode([NaN]), /ids\[0\] is NaN/],
    ['decode(text)', (t) => t.decode('ab' as never), /ids is "ab"/],
    ['batchDecode([1])', (t) => t.batchDecode([1] as never), /batch\[0\] is 1/],
    ['batchDecode(undefined)', (t) => t.batchDecode(undefined as never), /batch is undefined/],
    ['batchEncode(text)', (t) => t.batchEncode('ab' as never), /use encode/],
    ['batchEncode([5])', (t) => t.batchEncode([5] as never), /texts\[0\] is 5/],
    ['batchEncode with maxLength 0', (t) => t.batchEncode(['a'], { maxLength: 0 }), /maxLength is 0/],
    ['batchEncode with padding true', (t) => t.batchEncode(['a'], { padding: true as never }), /padding is true/],
    ['batchEncode with a side', (t) => t.batchEncode(['a'], { paddingSide: 'up' as never }), /paddingSide is "up"/],
  ])('%s', async (_, call, message) => {
    const whole = await tokenizer;
    expect(() => call(whole)).toThrow(message);
    expect(() => call(whole)).toThrow(ConfigError);
  });

  it('ids of typed arrays and ids beyond the vocabulary are fine', async () => {
    const whole = await tokenizer;
    const ids = whole.encode('hello', { addSpecialTokens: false });
    expect(whole.decode(Int32Array.from(ids) as never)).toBe('hello');
    expect(whole.decode([...ids, 99_999])).toBe('hello');
    expect(() => whole.batchEncode([])).toThrow(ConfigError);
  });
});
