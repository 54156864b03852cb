// How transformers 5 puts tokenizers together that have no tokenizer.json, one function for each kind of Python class.
import type { Json } from '../section.js';
import {
  byteLevel,
  markedWords,
  metaspace,
  precompiled,
  replaceRegex,
  replaceText,
  sequenceOf,
  spaceDecoder,
  type Component,
} from './components.js';
import { mergesOf, type SentencePieceModel } from './sentencepiece.js';

/** Settings of tokenizer_config.json and the texts of the special tokens. */
export interface ClassSettings {
  readonly config: Json;
  /** Text of a special token, such as `unk_token`; undefined when there is none. */
  readonly token: (name: string) => string | undefined;
}

/** What goes before and behind texts: pieces of a template, `$A` and `$B` for the texts. */
export interface TemplatePieces {
  readonly single: readonly string[];
  readonly pair: readonly string[];
}

export interface Built {
  readonly normalizer?: Component | null;
  readonly pre_tokenizer: Component | null;
  readonly decoder: Component;
  readonly model: Json;
  /** Left out: what `add_bos_token` and `add_eos_token` say. */
  readonly template?: TemplatePieces;
  /** Further special tokens. */
  readonly extra?: readonly string[];
}

export type FromSentencePiece = (model: SentencePieceModel, settings: ClassSettings) => Built;
export type FromWords = (vocabulary: Json, settings: ClassSettings, merges: readonly string[]) => Built;

const flag = (config: Json, key: string, fallback: boolean): boolean =>
  typeof config[key] === 'boolean' ? config[key] : fallback;

function bpeOf(model: SentencePieceModel, more: Json): Json {
  const vocabulary = new Map(model.pieces.map(({ text }, id) => [text, id]));
  return {
    type: 'BPE',
    fuse_unk: true,
    vocab: Object.fromEntries(vocabulary),
    merges: mergesOf(vocabulary),
    ...more,
  };
}

type Pieces = readonly (readonly [string, number])[];

const piecesOf = ({ pieces }: SentencePieceModel): Pieces => pieces.map(({ text, score }) => [text, score]);

const unigramOf = (vocab: Pieces, unkId: number, byteFallback = false): Json => ({
  type: 'Unigram',
  unk_id: unkId,
  byte_fallback: byteFallback,
  vocab,
});

const around = (before: readonly string[], behind: readonly string[], between: readonly string[]): TemplatePieces => ({
  single: [...before, '$A', ...behind],
  pair: [...before, '$A', ...between, '$B', ...behind],
});

/** Llama and its like. */
const llama =
  (unknown: boolean): FromSentencePiece =>
  (model, { config, token }) => {
    const prefix =
      config.add_prefix_space === undefined || config.add_prefix_space === null || config.add_prefix_space === true;
    const legacy = config.legacy === true && !unknown;
    return {
      normalizer: null,
      pre_tokenizer: metaspace(prefix ? (legacy ? 'always' : 'first') : 'never', false),
      decoder: spaceDecoder(true, prefix),
      model: bpeOf(model, { byte_fallback: true, unk_token: unknown ? (token('unk_token') ?? null) : null }),
    };
  };

const gemma: FromSentencePiece = (model, { token }) => ({
  normalizer: replaceText(' ', '\u2581'),
  pre_tokenizer: { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithPrevious', invert: false },
  decoder: spaceDecoder(true, false),
  model: bpeOf(model, { byte_fallback: true, unk_token: token('unk_token') ?? '<unk>' }),
});

/** Without a class of its own: what the file says, and no space before the text. */
const plain: FromSentencePiece = (model) => ({
  normalizer: sequenceOf('normalizers', [...precompiled(model.characterMap), replaceText(' ', '\u2581')]),
  pre_tokenizer: null,
  decoder: spaceDecoder(model.byteFallback, false),
  model:
    model.kind === 'bpe'
      ? bpeOf(model, { byte_fallback: model.byteFallback, unk_token: model.unkPiece })
      : unigramOf(piecesOf(model), model.unkId, model.byteFallback),
});

const t5: FromSentencePiece = (model, { config }) => {
  const count = typeof config.extra_ids === 'number' ? config.extra_ids : 100;
  const extra = Array.from({ length: count }, (_, i) => `<extra_id_${i}>`);
  const known = new Set(model.pieces.map(({ text }) => text));
  const more = [...extra].reverse().filter((text) => !known.has(text));
  return {
    normalizer: precompiled(model.characterMap)[0] ?? null,
    pre_tokenizer: markedWords(),
    decoder: metaspace('always'),
    model: unigramOf([...piecesOf(model), ...more.map((text) => [text, 0] as const)], 2),
    template: { single: ['$A', '</s>'], pair: ['$A', '</s>', '$B', '</s>'] },
    extra,
  };
};

const quotes = [replaceText('``', '"'), replaceText("''", '"')];

/** Albert and XLNet: without accents, in lower case for Albert. */
const quoted =
  (lowers: boolean, unkId: number, parts: (settings: ClassSettings) => TemplatePieces): FromSentencePiece =>
  (model, settings) => {
    const { config } = settings;
    const keeps = lowers && flag(config, 'keep_accents', false);
    const scheme = flag(config, 'add_prefix_space', true) || !lowers ? 'always' : 'never';
    return {
      normalizer: sequenceOf('normalizers', [
        ...quotes,
        ...(keeps ? [] : [{ type: 'NFKD' }, { type: 'StripAccents' }]),
        ...(flag(config, 'do_lower_case', lowers) ? [{ type: 'Lowercase' }] : []),
        ...precompiled(model.characterMap),
      ]),
      pre_tokenizer: markedWords(scheme),
      decoder: metaspace(scheme),
      model: unigramOf(piecesOf(model), unkId),
      template: parts(settings),
    };
  };

const albert = quoted(true, 1, () => ({
  single: ['[CLS]', '$A', '[SEP]'],
  pair: ['[CLS]', '$A', '[SEP]', '$B', '[SEP]'],
}));

const xlnet = quoted(false, 0, ({ token }) => {
  const [sep, cls] = [token('sep_token') ?? '<sep>', token('cls_token') ?? '<cls>'];
  return { single: ['$A', sep, cls], pair: ['$A', sep, '$B', sep, cls] };
});

/** The pieces behind the first ones of fairseq: its own four tokens, then what the file has from the third on. */
const fairseqPieces = (model: SentencePieceModel, { token }: ClassSettings, more: readonly string[]): Pieces => [
  ...['bos_token', 'pad_token', 'eos_token', 'unk_token'].map((name) => [token(name) ?? '<s>', 0] as const),
  ...piecesOf(model).slice(3),
  ...[...more, token('mask_token') ?? '<mask>'].map((text) => [text, 0] as const),
];

const betweenTwo = (bos: string, eos: string): TemplatePieces => around([bos], [eos], [eos, eos]);

const xlmRoberta: FromSentencePiece = (model, settings) => {
  const scheme = flag(settings.config, 'add_prefix_space', true) ? 'always' : 'never';
  return {
    normalizer: precompiled(model.characterMap)[0] ?? null,
    pre_tokenizer: markedWords(scheme),
    decoder: metaspace(scheme),
    model: unigramOf(fairseqPieces(model, settings, []), 3),
    template: betweenTwo(settings.token('bos_token') ?? '<s>', settings.token('eos_token') ?? '</s>'),
  };
};

const camembert: FromSentencePiece = (model, settings) => {
  const { token, config } = settings;
  const scheme = flag(config, 'add_prefix_space', true) ? 'always' : 'never';
  const first: Pieces = [
    ['<s>NOTUSED', 0],
    [token('pad_token') ?? '<pad>', 0],
    ['</s>NOTUSED', 0],
    [token('unk_token') ?? '<unk>', 0],
    ['<unk>NOTUSED', -100],
  ];
  const vocab: Pieces = [...first, ...piecesOf(model).slice(1), [token('mask_token') ?? '<mask>', 0]];
  return {
    normalizer: precompiled(model.characterMap)[0] ?? null,
    pre_tokenizer: markedWords(scheme),
    decoder: metaspace(scheme),
    model: unigramOf(vocab, 3),
    template: betweenTwo(token('bos_token') ?? '<s>', token('eos_token') ?? '</s>'),
  };
};

const mbartLanguages =
  'ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN'.split(
    ' ',
  );
const mbart50Languages = [
  ...mbartLanguages,
  ...'af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI'.split(
    ' ',
  ),
];

const sourceLanguage = ({ src_lang: language }: Json): string => (typeof language === 'string' ? language : 'en_XX');

const mbart: FromSentencePiece = (model, settings) => ({
  normalizer: null,
  pre_tokenizer: markedWords(),
  decoder: metaspace('always'),
  model: unigramOf(fairseqPieces(model, settings, mbartLanguages), 3),
  template: around([], ['</s>', sourceLanguage(settings.config)], []),
  extra: mbartLanguages,
});

const mbart50: FromSentencePiece = (model, settings) => ({
  normalizer: sequenceOf('normalizers', [...precompiled(model.characterMap), replaceRegex(' {2,}', ' ')]),
  pre_tokenizer: metaspace('always'),
  decoder: metaspace('always'),
  model: unigramOf(
    fairseqPieces(
      model,
      { ...settings, token: (name) => settings.token(name === 'bos_token' ? 'cls_token' : name) },
      mbart50Languages,
    ),
    3,
  ),
  template: around([sourceLanguage(settings.config)], ['</s>'], []),
  extra: mbart50Languages,
});

/** By class, for files of SentencePiece. */
export const sentencePieceClasses: Readonly<Record<string, FromSentencePiece>> = {
  TokenizersBackend: plain,
  LlamaTokenizer: llama(false),
  CodeLlamaTokenizer: llama(true),
  GemmaTokenizer: gemma,
  T5Tokenizer: t5,
  AlbertTokenizer: albert,
  XLNetTokenizer: xlnet,
  XLMRobertaTokenizer: xlmRoberta,
  CamembertTokenizer: camembert,
  MBartTokenizer: mbart,
  MBart50Tokenizer: mbart50,
};

const bytePair = (vocab: Json, merges: readonly string[], more: Json = {}): Json => ({
  type: 'BPE',
  vocab,
  merges,
  ...more,
});

const gpt2: FromWords = (vocab, { config }, merges) => ({
  pre_tokenizer: byteLevel(flag(config, 'add_prefix_space', false)),
  decoder: byteLevel(true),
  model: bytePair(vocab, merges),
});

const qwen2Regex =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const qwen2: FromWords = (vocab, { config }, merges) => ({
  normalizer: { type: 'NFC' },
  pre_tokenizer: sequenceOf('pretokenizers', [
    { type: 'Split', pattern: { Regex: qwen2Regex }, behavior: 'Isolated', invert: false },
    byteLevel(flag(config, 'add_prefix_space', false), false),
  ]),
  decoder: byteLevel(true),
  model: bytePair(vocab, merges),
});

const roberta: FromWords = (vocab, settings, merges) => ({
  ...gpt2(vocab, settings, merges),
  template: betweenTwo(settings.token('cls_token') ?? '<s>', settings.token('sep_token') ?? '</s>'),
});

const gptNeoX: FromWords = (...given) => ({ ...gpt2(...given), normalizer: { type: 'NFC' } });

const bert =
  (template: (settings: ClassSettings) => TemplatePieces): FromWords =>
  (vocab, settings) => ({
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: flag(settings.config, 'tokenize_chinese_chars', true),
      strip_accents: settings.config.strip_accents ?? null,
      lowercase: flag(settings.config, 'do_lower_case', true),
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: { type: 'WordPiece', vocab, unk_token: settings.token('unk_token') ?? '[UNK]' },
    template: template(settings),
  });

const bertPlain = bert(({ token }) => {
  const [cls, sep] = [token('cls_token') ?? '[CLS]', token('sep_token') ?? '[SEP]'];
  return around([cls], [sep], [sep]);
});

const mpnet = bert(({ token }) => betweenTwo(token('cls_token') ?? '<s>', token('sep_token') ?? '</s>'));

/** By class, for vocab.json with merges.txt. */
export const mergesClasses: Readonly<Record<string, FromWords>> = {
  GPT2Tokenizer: gpt2,
  CodeGenTokenizer: gpt2,
  Qwen2Tokenizer: qwen2,
  RobertaTokenizer: roberta,
  BartTokenizer: roberta,
  LEDTokenizer: roberta,
  LongformerTokenizer: roberta,
  GPTNeoXTokenizer: gptNeoX,
};

/** By class, for vocab.txt. */
export const wordsClasses: Readonly<Record<string, FromWords>> = {
  BertTokenizer: bertPlain,
  DistilBertTokenizer: bertPlain,
  ElectraTokenizer: bertPlain,
  MobileBertTokenizer: bertPlain,
  ConvBertTokenizer: bertPlain,
  LayoutLMTokenizer: bertPlain,
  LxmertTokenizer: bertPlain,
  RetriBertTokenizer: bertPlain,
  SqueezeBertTokenizer: bertPlain,
  MPNetTokenizer: mpnet,
};
