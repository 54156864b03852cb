// A tokenizer as tokenizer.json describes it: the parts put together, text to ids and ids to text.
import { CheckpointError } from '@q/config';
import { tokenizerLimits, type TokenizerLimits } from '../limits.js';
import { AddedTokens, addedTokensOf, type AddedToken } from './added-tokens.js';
import { withDeadline } from './deadline.js';
import { decoderOf, type Decoder } from './decoders.js';
import { BpeBuilder } from './model/bpe.js';
import type { Model, ModelBuilder } from './model/model.js';
import { UnigramBuilder } from './model/unigram.js';
import { WordLevelBuilder, WordPieceBuilder } from './model/words.js';
import { normalizerOf } from './normalizers.js';
import { postProcessorOf, type PostProcessor } from './post-processors.js';
import { preTokenizerOf, type PreTokenizer } from './pre-tokenizers.js';
import { checkNesting, Section, type Json } from './section.js';

/** Halves of characters, which UTF-8 cannot hold. */
const loneSurrogates = /\p{Cs}/gu;

const builders: Readonly<Record<string, new (section: Section) => ModelBuilder>> = {
  BPE: BpeBuilder,
  Unigram: UnigramBuilder,
  WordPiece: WordPieceBuilder,
  WordLevel: WordLevelBuilder,
};

/** The kind of a model; older files do not say it. */
function modelKind(model: Section): string {
  if (model.value.type !== undefined) return model.string('type');
  if (Array.isArray(model.value.vocab)) return 'Unigram';
  if (model.value.merges !== undefined) return 'BPE';
  return model.value.continuing_subword_prefix === undefined ? 'WordLevel' : 'WordPiece';
}

/** Starts a model from its section of tokenizer.json, whose vocabulary and merges may come later. */
export function modelBuilderOf(model: Section): ModelBuilder {
  const kind = modelKind(model);
  return Object.hasOwn(builders, kind) ? new builders[kind](model) : model.unsupported(Object.keys(builders));
}

/** Fills a model with what its section holds. */
export function fillModel(builder: ModelBuilder, model: Section): Model {
  if (modelKind(model) === 'Unigram') {
    const pieces = model.list('vocab').map((piece) => (Array.isArray(piece) ? (piece as unknown[]) : [piece]));
    builder.addTokens(
      pieces.map(([token]) => token),
      pieces.map(([, score]) => score),
    );
  } else {
    const { value: vocab } = model.section('vocab');
    builder.addTokens(Object.keys(vocab), Object.values(vocab));
  }
  if (model.value.merges !== undefined) builder.addMerges(model.list('merges'));
  return builder.finish();
}

interface PipelineOptions {
  readonly pair: string | undefined;
  readonly addSpecialTokens: boolean;
  readonly splitSpecialTokens: boolean;
}

export class Pipeline {
  readonly #root: Section;
  readonly #model: Model;
  readonly #preTokenizer: PreTokenizer | undefined;
  readonly #decoder: Decoder | undefined;
  readonly #costly: boolean;
  #postProcessor: PostProcessor | undefined;
  readonly added: AddedTokens;

  /**
   * @param root tokenizer.json, or what another vocabulary file was made into
   * @param model its model, with its vocabulary
   * @throws CheckpointError that names the section; UnsupportedError for components that Q does not have
   */
  constructor(root: Section, model: Model) {
    checkNesting({ ...root.value, model: null, added_tokens: null }, root.file, root.limits);
    this.#root = root;
    this.#model = model;
    const optional = <T>(key: string, make: (section: Section) => T): T | undefined => {
      const section = root.optionalSection(key);
      return section && make(section);
    };
    const normalizer = optional('normalizer', normalizerOf);
    this.#preTokenizer = optional('pre_tokenizer', preTokenizerOf);
    this.#decoder = optional('decoder', decoderOf);
    this.#costly = [normalizer, this.#preTokenizer].some((part) => part?.costly);
    this.added = new AddedTokens(model.vocabulary, normalizer);
    this.#watched('tokenizer', 0, this.#costly, () => this.added.add(addedTokensOf(root)));
  }

  /** Adds tokens after those of tokenizer.json. */
  add(tokens: readonly AddedToken[]): void {
    this.#watched('tokenizer', 0, this.#costly, () => this.added.add(tokens));
  }

  /** Checks what refers to tokens, once all are there. @throws CheckpointError for ids that no token has. */
  finish(postProcessor?: Json): this {
    const section = postProcessor
      ? new Section(this.#root.file, 'post_processor', postProcessor, this.#root.limits)
      : this.#root.optionalSection('post_processor');
    this.#postProcessor = section && postProcessorOf(section, (id) => this.added.textOf(id) !== undefined);
    return this;
  }

  /** tokenizer.json, a large vocabulary left out. */
  get json(): Json {
    return this.#root.value;
  }

  get kind(): string {
    return modelKind(this.#root.section('model'));
  }

  get joinsBytes(): boolean {
    return this.#decoder?.joinsBytes ?? false;
  }

  /** Ids of a text, or of a text and its pair. */
  encode(text: string, { pair, addSpecialTokens, splitSpecialTokens }: PipelineOptions): number[] {
    const texts = pair === undefined ? [text] : [text, pair];
    const length = texts.reduce((sum, { length: n }) => sum + n, 0);
    return this.#watched('encode', length, this.#costly, () => {
      const lists = texts.map((one) => this.#encodeOne(one.replace(loneSurrogates, '\ufffd'), splitSpecialTokens));
      const processed = this.#postProcessor?.process(lists, addSpecialTokens) ?? lists;
      return processed.length === 1 ? [...processed[0]] : processed.flat();
    });
  }

  #encodeOne(text: string, splitSpecialTokens: boolean): number[] {
    const ids: number[] = [];
    for (const part of this.added.split(text, !splitSpecialTokens)) {
      if (part.id !== undefined) {
        ids.push(part.id);
        continue;
      }
      const pieces = { texts: [part.text], atOrigin: [part.fromOrigin] };
      const { texts } = this.#preTokenizer?.split(pieces) ?? pieces;
      for (const piece of texts) this.#model.encode(piece, ids);
    }
    return ids;
  }

  /** The text of ids; those that no token has are passed over. */
  decode(ids: readonly number[], skipSpecialTokens: boolean): string {
    const tokens: string[] = [];
    let length = 0;
    for (const id of ids) {
      const token = this.added.textOf(id);
      if (token === undefined || (skipSpecialTokens && this.added.isSpecial(token))) continue;
      tokens.push(token);
      length += token.length;
    }
    if (!this.#decoder) return tokens.join(' ');
    const decoder = this.#decoder;
    return this.#watched('decode', length, decoder.costly, () => decoder.decode(tokens).join(''));
  }

  #watched<T>(op: string, length: number, costly: boolean | undefined, work: () => T): T {
    const { limits } = this.#root;
    return costly || length > limits.unwatchedLength ? withDeadline(op, length, limits, work) : work();
  }
}

/** A pipeline of a whole tokenizer.json at once. */
export function pipelineOf(json: Json, file = 'tokenizer.json', limits: TokenizerLimits = tokenizerLimits): Pipeline {
  const root = new Section(file, '', json, limits);
  const model = root.section('model');
  try {
    return new Pipeline(root, fillModel(modelBuilderOf(model), model));
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new CheckpointError('tokenizer', `${file} is too large or too deep`, { cause });
  }
}
