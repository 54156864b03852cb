// Tokenizers without tokenizer.json: other vocabulary files are made into what it would hold.
import { CheckpointError, UnsupportedError } from '@q/config';
import type { TokenizerLimits } from '../../limits.js';
import type { AddedToken } from '../added-tokens.js';
import { classDefaults, genericClass } from '../classes.js';
import { fillModel, modelBuilderOf, Pipeline } from '../pipeline.js';
import { readTokenizerFile, readTokenizerJson } from '../read.js';
import { Section, type Json } from '../section.js';
import { specialTokensOf, type SpecialTokenFiles, type SpecialTokens } from '../special-tokens.js';
import { Tokenizer } from '../tokenizer.js';
import { mergesClasses, sentencePieceClasses, wordsClasses, type Built, type ClassSettings } from './classes.js';
import { template } from './components.js';
import { pieceType, readSentencePiece, type SentencePieceModel } from './sentencepiece.js';

const sentencePieceNames = [
  'tokenizer.model',
  'spiece.model',
  'sentencepiece.bpe.model',
  'spm.model',
  'sentencepiece.model',
];

/** Classes whose mask token takes the space before it. */
const stripsMask = new Set([
  'XLNetTokenizer',
  'CamembertTokenizer',
  'MBartTokenizer',
  'MBart50Tokenizer',
  'MPNetTokenizer',
]);

type Files = Pick<SpecialTokenFiles, 'config' | 'map' | 'added'>;

interface Source {
  readonly file: string;
  readonly build: (settings: ClassSettings) => Built;
  readonly piece?: SentencePieceModel;
}

/** How files are read. */
export interface Reading {
  readonly signal?: AbortSignal;
  readonly limits: TokenizerLimits;
}

/**
 * The tokenizer that a folder's tokenizer.model, vocab.json and merges.txt, or vocab.txt describe; undefined when it
 * has none of them.
 * @param name Python class
 * @throws UnsupportedError for a class that Q cannot make of such a file; CheckpointError for damaged files
 */
export async function convertVocabulary(
  folder: string,
  name: string,
  files: Files,
  reading: Reading,
): Promise<Tokenizer | undefined> {
  const source =
    (await sentencePieceSource(folder, name, reading)) ??
    (await mergesSource(folder, name, reading)) ??
    (await wordsSource(folder, name, reading));
  if (source) return assemble(name, files, source, reading.limits);
  await refuseHalf(folder, reading);
  return undefined;
}

/** @throws CheckpointError when of vocab.json and merges.txt only one is there */
async function refuseHalf(folder: string, reading: Reading): Promise<void> {
  const halves = ['vocab.json', 'merges.txt'];
  const { signal, limits } = reading;
  for (const file of halves) {
    if (!(await readTokenizerFile(folder, file, limits.vocabularyFileBytes, signal))) continue;
    const [other] = halves.filter((half) => half !== file);
    throw new CheckpointError('tokenizer', `${file} is there, and neither ${other} nor tokenizer.json`, {
      folder,
      fix: `fetch ${other} too, or tokenizer.json`,
    });
  }
}

function converterOf<T>(classes: Readonly<Record<string, T>>, name: string, file: string): T {
  if (Object.hasOwn(classes, name)) return classes[name];
  throw new UnsupportedError('tokenizer', `${file} is there without tokenizer.json, for the class ${name}`, {
    why: `from such a file Q makes ${Object.keys(classes).join(', ')}`,
    fix: 'write tokenizer.json in Python: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)',
  });
}

async function sentencePieceSource(folder: string, name: string, reading: Reading): Promise<Source | undefined> {
  for (const file of sentencePieceNames) {
    const bytes = await readTokenizerFile(folder, file, reading.limits.vocabularyFileBytes, reading.signal);
    if (!bytes) continue;
    if (/^[A-Za-z0-9+/]+=* \d+\r?\n/.test(bytes.toString('latin1', 0, 256)))
      throw new UnsupportedError('tokenizer', `${file} is a tiktoken vocabulary`, {
        folder,
        fix: 'write tokenizer.json in Python: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)',
      });
    const piece = readSentencePiece(bytes, file, reading.limits.tokens);
    const build = converterOf(sentencePieceClasses, name, file);
    return { file, piece, build: (settings) => build(piece, settings) };
  }
  return undefined;
}

async function mergesSource(folder: string, name: string, reading: Reading): Promise<Source | undefined> {
  const { signal, limits } = reading;
  const [vocab, merges] = [
    await readTokenizerJson(folder, 'vocab.json', limits.vocabularyFileBytes, signal),
    await readTokenizerFile(folder, 'merges.txt', limits.vocabularyFileBytes, signal),
  ];
  if (!vocab || !merges) return undefined;
  const build = converterOf(mergesClasses, name, 'vocab.json');
  const lines = merges
    .toString('utf8')
    .split(/\r?\n/)
    .filter((line) => line !== '' && !line.startsWith('#version'));
  return { file: 'vocab.json and merges.txt', build: (settings) => build(vocab, settings, lines) };
}

async function wordsSource(folder: string, name: string, reading: Reading): Promise<Source | undefined> {
  const bytes = await readTokenizerFile(folder, 'vocab.txt', reading.limits.vocabularyFileBytes, reading.signal);
  if (!bytes) return undefined;
  const build = converterOf(wordsClasses, name, 'vocab.txt');
  const lines = bytes.toString('utf8').split('\n');
  if (lines.at(-1) === '') lines.pop();
  // Of equal lines the last counts.
  const vocab = Object.fromEntries(lines.map((line, id) => [line.replace(/\r$/, ''), id]));
  return { file: 'vocab.txt', build: (settings) => build(vocab, settings, []) };
}

const symbolsOf = ({ pieces }: SentencePieceModel): AddedToken[] =>
  pieces
    .filter(({ type }) => type === pieceType.control || type === pieceType.userDefined)
    .map(({ text, type }) => ({
      content: text,
      singleWord: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: type === pieceType.control,
    }));

/** Special tokens that a generic class takes from the file. */
const namedIn = ({ bosPiece, eosPiece, unkPiece, unkId }: SentencePieceModel): Record<string, string> => ({
  ...(bosPiece !== undefined && { bos_token: bosPiece }),
  ...(eosPiece !== undefined && { eos_token: eosPiece }),
  ...(unkId >= 0 && { unk_token: unkPiece }),
});

function assemble(name: string, files: Files, { file, build, piece }: Source, limits: TokenizerLimits): Tokenizer {
  const { defaults = {}, paddingSide } = classDefaults(name);
  const given = {
    ...files,
    defaults: name === genericClass && piece ? namedIn(piece) : defaults,
    further: piece ? symbolsOf(piece) : [],
    stripsMask: stripsMask.has(name),
  };
  const named = specialTokensOf(given).named;
  const built = build({ config: files.config, token: (key) => named.get(key)?.content });
  const special = specialTokensOf({
    ...given,
    further: [...given.further, ...(built.extra ?? []).map((text) => ({ ...plainSpecial, content: text }))],
  });
  const { template: pieces, extra: _, ...json } = built;
  const root = new Section(file, '', { ...json, added_tokens: [] }, limits);
  const pipeline = new Pipeline(root, fillModel(modelBuilderOf(root.section('model')), root.section('model')));
  pipeline.add(special.toAdd([]));
  const { single, pair } = pieces ?? addedPieces(name, files.config, special);
  const post = template(
    single,
    pair,
    (text) => pipeline.added.idOf(text) ?? root.fail('template', `lacks the token ${text}`),
  );
  return new Tokenizer({}, files.config, { pipeline: pipeline.finish(post), special, paddingSide });
}

const plainSpecial = { singleWord: false, lstrip: false, rstrip: false, normalized: false, special: true };

/** What `add_bos_token` and `add_eos_token` put around texts. */
function addedPieces(name: string, config: Json, special: SpecialTokens): { single: string[]; pair: string[] } {
  const token = (key: string, adds: unknown): string[] => {
    const content = special.named.get(key)?.content;
    return adds === true && content !== undefined ? [content] : [];
  };
  const bos = token('bos_token', config.add_bos_token ?? name === 'CodeLlamaTokenizer');
  const eos = token('eos_token', config.add_eos_token);
  const single = [...bos, '$A', ...eos];
  return { single, pair: [...single, ...bos, '$B', ...eos] };
}
