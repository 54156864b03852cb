// Tokenizers of strangers: loading settles, with an error that names file and section; encoding ends.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { AutoTokenizer, CheckpointError, ConfigError, QError, Tokenizer } from '../index.js';
import { tokenizerLimits } from '../limits.js';
import { temporaryFolders } from '../testing.js';
import { withDeadline } from './deadline.js';
import { optionalTokenizer } from './load.js';
import { backtracksLittle } from './pattern-cost.js';

const temporary = temporaryFolders();

const bpe = (more: object = {}) => ({ type: 'BPE', vocab: { a: 0, b: 1, ab: 2 }, merges: ['a b'], ...more });
const json = (more: object = {}): Record<string, unknown> => ({ added_tokens: [], model: bpe(), ...more });
const token = (more: object) => ({ id: 3, content: '<x>', special: true, ...more });

async function folderOf(text: string): Promise<string> {
  const folder = await temporary('hostile');
  await writeFile(join(folder, 'tokenizer.json'), text);
  return folder;
}

const deep = (levels: number, value = '1') => `${'['.repeat(levels)}${value}${']'.repeat(levels)}`;
const nested = (levels: number) => '{"type":"Sequence","normalizers":['.repeat(levels) + ']}'.repeat(levels);

const wrong: [what: string, file: string, message: RegExp][] = [
  ['not JSON', '{', /tokenizer\.json is not valid JSON/],
  ['a list', '[]', /tokenizer\.json must hold a JSON object/],
  ['no model', '{}', /model is missing/],
  ['a model of another kind', JSON.stringify(json({ model: { type: 'Lstm', vocab: {} } })), /model\.type is "Lstm"/],
  ['a model without vocabulary', JSON.stringify(json({ model: { type: 'BPE' } })), /model\.vocab is missing/],
  ['a fraction', JSON.stringify(json({ model: bpe({ vocab: { a: 0.5 }, merges: [] }) })), /gives "a" the id 0\.5/],
  ['a negative id', JSON.stringify(json({ model: bpe({ vocab: { a: -1 }, merges: [] }) })), /gives "a" the id -1/],
  ['a huge id', JSON.stringify(json({ model: bpe({ vocab: { a: 4e9 }, merges: [] }) })), /the id 4000000000, above/],
  ['one id twice', JSON.stringify(json({ model: bpe({ vocab: { a: 0, b: 0 }, merges: [] }) })), /the same id 0/],
  ['a merge of three', JSON.stringify(json({ model: bpe({ merges: ['a b a'] }) })), /merges\[0\] is "a b a"/],
  ['a merge of a number', JSON.stringify(json({ model: bpe({ merges: [['a', 1]] }) })), /merges\[0\]/],
  ['a merge of the unknown', JSON.stringify(json({ model: bpe({ merges: ['a c'] }) })), /lacks "c"/],
  ['dropout', JSON.stringify(json({ model: bpe({ dropout: 0.1 }) })), /dropout/],
  ['a piece without score', JSON.stringify(json({ model: { type: 'Unigram', vocab: [['a']] } })), /model\.vocab\[0\]/],
  ['unk_id beyond', JSON.stringify(json({ model: { type: 'Unigram', unk_id: 7, vocab: [['a', 0]] } })), /unk_id is 7/],
  ['an added token of 5', JSON.stringify(json({ added_tokens: [5] })), /added_tokens\[0\] is 5/],
  ['an added token without id', JSON.stringify(json({ added_tokens: [token({ id: null })] })), /added_tokens\[0\]\.id/],
  [
    'an added token 1e9',
    JSON.stringify(json({ added_tokens: [token({ id: 1e9 })] })),
    /added_tokens\[0\]\.id is 1000000000/,
  ],
  ['a normalizer of text', JSON.stringify(json({ normalizer: 'NFC' })), /normalizer is "NFC", not an object/],
  [
    'an unknown normalizer',
    JSON.stringify(json({ normalizer: { type: '__proto__' } })),
    /normalizer\.type is "__proto__"/,
  ],
  [
    'a broken expression',
    JSON.stringify(json({ pre_tokenizer: { type: 'Split', pattern: { Regex: '(' }, behavior: 'Isolated' } })),
    /pre_tokenizer\.pattern\.Regex/,
  ],
  [
    'a broken map',
    JSON.stringify(json({ normalizer: { type: 'Precompiled', precompiled_charsmap: 'AAAAAA==' } })),
    /precompiled_charsmap/,
  ],
  [
    'a template of unknown ids',
    JSON.stringify(
      json({
        post_processor: {
          type: 'TemplateProcessing',
          single: [{ SpecialToken: { id: 'x' } }],
          pair: [],
          special_tokens: { x: { ids: [9] } },
        },
      }),
    ),
    /post_processor\.special_tokens\.x\.ids/,
  ],
  [
    'Roberta with an unknown id',
    JSON.stringify(json({ post_processor: { type: 'RobertaProcessing', sep: ['a', 99], cls: ['b', 1] } })),
    /post_processor\.sep/,
  ],
  ['deep sections', JSON.stringify(json()).replace('{', `{"normalizer":${nested(40)},`), /nested deeper than 64/],
  ['very deep lists', JSON.stringify(json()).replace('{', `{"extra":${deep(50_000)},`), /nested (deeper|too deeply)/],
  ['very deep vocabulary', JSON.stringify(json()).replace('"a":0', `"a":${deep(50_000)}`), /tokenizer\.json/],
  [
    'many components',
    JSON.stringify(json({ normalizer: { type: 'Sequence', normalizers: new Array(300).fill({ type: 'NFC' }) } })),
    /more than 256 components/,
  ],
];

describe.each(['at once', 'in parts'])('%s, a tokenizer.json with', (how) => {
  it.each(wrong)('%s is refused', async (_, text, message) => {
    const folder = await folderOf(text);
    const error = optionalTokenizer(folder, how === 'in parts' ? { small: 0 } : { small: 1e9 });
    await expect(error).rejects.toThrow(QError);
    await expect(error).rejects.toThrow(message);
  });
});

describe('loading', () => {
  it('ends when the signal says so', async () => {
    const vocab = Object.fromEntries(Array.from({ length: 60_000 }, (_, i) => [`token${i}`, i]));
    const folder = await folderOf(JSON.stringify(json({ model: bpe({ vocab, merges: [] }) })));
    const reason = new Error('enough');
    const controller = new AbortController();
    const loading = AutoTokenizer.fromPretrained(folder, { signal: controller.signal });
    setTimeout(() => controller.abort(reason), 20);
    await expect(loading).rejects.toBe(reason);
    await expect(optionalTokenizer(folder, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  it('refuses what is no file', async () => {
    const folder = await temporary('folder');
    const { mkdir } = await import('node:fs/promises');
    await mkdir(join(folder, 'tokenizer.json'));
    await expect(AutoTokenizer.fromPretrained(folder)).rejects.toThrow(CheckpointError);
  });
});

describe('the work on a text', () => {
  it('ends', () => {
    const endless = () => {
      for (;;);
    };
    expect(() => withDeadline('encode', -400_000, tokenizerLimits, endless)).toThrow(ConfigError);
    expect(
      withDeadline('encode', 0, tokenizerLimits, () => withDeadline('encode', 0, tokenizerLimits, () => 5) + 1),
    ).toBe(6);
    expect(() =>
      withDeadline('encode', 0, tokenizerLimits, () => {
        throw new RangeError('own');
      }),
    ).toThrow(RangeError);
  });

  it('of an exponential expression ends', { timeout: 60_000 }, () => {
    const split = { type: 'Split', pattern: { Regex: '(a+)+$' }, behavior: 'Isolated' };
    const tokenizer = new Tokenizer(json({ pre_tokenizer: split }));
    expect(tokenizer.encode('aab')).toEqual([0, 2]);
    expect(() => tokenizer.encode(`${'a'.repeat(60)}b`)).toThrow(/took longer than/);
  });

  it('may not fill the memory', () => {
    const double = { type: 'Replace', pattern: { String: 'a' }, content: 'aa' };
    const normalizer = { type: 'Sequence', normalizers: new Array(40).fill(double) };
    expect(() => new Tokenizer(json({ normalizer })).encode('a'.repeat(100))).toThrow(/normalizer makes/);
  });

  it.each([
    [String.raw`'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, true],
    [
      String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
      true,
    ],
    [String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lo}\p{M}]*[\p{Ll}\p{Lo}\p{M}]+(?i:'s|'t)?|\p{N}{1,3}|\s+`, true],
    [String.raw`[一-龥぀-ゟ゠-ヿ]+`, true],
    [String.raw` ?[^(\s|[.,!?…])]+`, true],
    ['(a+)+$', false],
    ['(a|aa)+$', false],
    ['a*a*a*b', false],
    ['a?a?a?a?a?a?a?aaaaaaa', false],
    [String.raw`(a)\1+`, false],
    ['(?<=a+)b', false],
    ['([a-z]{1,60}){1,60}!', false],
  ])('%s runs without a clock: %s', (source, expected) => {
    expect(backtracksLittle(source)).toBe(expected);
  });
});

describe('limits of the caller', () => {
  const folders = temporaryFolders();
  const folderOf = async (json: object): Promise<string> => {
    const folder = await folders('limits');
    await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(json));
    return folder;
  };
  const model = { type: 'BPE', vocab: { a: 0, b: 1, c: 2 }, merges: [] };

  it.each([
    [{ tokens: 2 }, { model }, /more than 2 tokens/],
    [{ tokenId: 1 }, { model }, /above 1/],
    [{ vocabularyFileBytes: 20 }, { model }, /20/],
    [
      { patternLength: 3 },
      { model, pre_tokenizer: { type: 'Split', pattern: { Regex: 'abcd' }, behavior: 'Isolated' } },
      /3/,
    ],
    [
      { trieNodes: 3000 },
      { model: { type: 'Unigram', vocab: [['a'.repeat(10_000), -1]], unk_id: 0 } },
      /more than 3000 characters/,
    ],
    [
      { components: 1 },
      { model, decoder: { type: 'Sequence', decoders: [{ type: 'Fuse' }] } },
      /more than 1 components/,
    ],
  ])('%j are kept', async (limits, json, message) => {
    const folder = await folderOf(json);
    await expect(AutoTokenizer.fromPretrained(folder, { tokenizerLimits: limits })).rejects.toThrow(message);
    const raised = Object.fromEntries(Object.keys(limits).map((name) => [name, Infinity]));
    expect((await AutoTokenizer.fromPretrained(folder, { tokenizerLimits: raised })).encode('b')).toHaveLength(1);
  });

  it('lower the time of a text, or take it away', async () => {
    const slow = { type: 'Split', pattern: { Regex: '(a+)+$' }, behavior: 'Isolated' };
    const folder = await folderOf({ model, pre_tokenizer: slow });
    const hasty = await AutoTokenizer.fromPretrained(folder, { tokenizerLimits: { textMilliseconds: 50 } });
    expect(() => hasty.encode(`${'a'.repeat(40)}b`)).toThrow(/raise textMilliseconds of tokenizerLimits/);
    const patient = await AutoTokenizer.fromPretrained(folder, { tokenizerLimits: { textMilliseconds: Infinity } });
    expect(patient.encode('aab')).toHaveLength(3);
  });

  it.each([
    [{ token: 3 }, /did you mean tokens/],
    [{ tokens: 0 }, /tokens is 0/],
    [{ depth: 1.5 }, /depth is 1.5/],
    [{ depth: '3' }, /depth/],
    [[], /tokenizerLimits is/],
    [null, /tokenizerLimits is/],
  ])('%j are refused', async (limits, message) => {
    const options = { tokenizerLimits: limits as never };
    const refused = AutoTokenizer.fromPretrained(await folderOf({ model }), options);
    await expect(refused).rejects.toThrow(ConfigError);
    await expect(refused).rejects.toThrow(message);
  });
});
