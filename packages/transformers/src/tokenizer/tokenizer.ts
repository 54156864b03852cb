import { assertKnownKeys } from '@q/config';
import type { TokenDecoder } from '@q/generate';
import { ChatTemplates } from '../chat/apply.js';
import {
  chatTemplateOptionNames,
  conversationsOf,
  type ChatMessage,
  type ChatOptions,
  type ChatTemplateOptions,
  type Conversation,
} from '../chat/options.js';
import { byteTokenSpellings } from './byte-fallback.js';
import { cleanUpSpaces } from './decoders.js';
import { checkFlag, checkIds, checkList, checkText } from './inputs.js';
import {
  encodeOptionNames,
  padOptionNames,
  type DecodeOptions,
  type EncodeOptions,
  type PadOptions,
} from './options.js';
import { checkPadOptions, padded, truncated, type PaddedBatch } from './padding.js';
import { pipelineOf, type Pipeline } from './pipeline.js';
import { specialTokensOf, type SpecialTokens } from './special-tokens.js';

/** What a tokenizer is made of, when not of tokenizer.json alone. @internal */
export interface TokenizerParts {
  readonly pipeline: Pipeline;
  readonly special: SpecialTokens;
  /** Ids of config.json, for names that no file of the tokenizer mentions. */
  readonly configIds?: Readonly<Record<string, number>>;
  readonly paddingSide?: 'left' | 'right';
  readonly warnings?: readonly string[];
}

function partsOf(json: Readonly<Record<string, unknown>>, config: Readonly<Record<string, unknown>>): TokenizerParts {
  const pipeline = pipelineOf(json);
  const special = specialTokensOf({ config, own: pipeline.added.tokens });
  pipeline.add(special.toAdd(pipeline.added.tokens.values()));
  return { pipeline: pipeline.finish(), special };
}

/** Text to token ids and back. Made by {@link AutoTokenizer}. */
export class Tokenizer implements TokenDecoder {
  readonly #pipeline: Pipeline;
  readonly #parts: TokenizerParts;
  readonly #byteIds: ReadonlySet<number>;
  readonly #chatTemplates = new ChatTemplates();

  /**
   * @param tokenizerJson contents of `tokenizer.json`
   * @param config contents of `tokenizer_config.json`
   * @throws CheckpointError that names the file and the section that is wrong
   */
  constructor(tokenizerJson: Readonly<Record<string, unknown>>, config?: Readonly<Record<string, unknown>>);
  /** Of parts made elsewhere; an overload, since only a whole declaration can be left out of the types. @internal */
  constructor(
    tokenizerJson: Readonly<Record<string, unknown>>,
    config: Readonly<Record<string, unknown>>,
    parts: TokenizerParts,
  );
  constructor(
    tokenizerJson: Readonly<Record<string, unknown>>,
    readonly config: Readonly<Record<string, unknown>> = {},
    parts: TokenizerParts = partsOf(tokenizerJson, config),
  ) {
    this.#parts = parts;
    this.#pipeline = parts.pipeline;
    const byteIds = parts.pipeline.joinsBytes ? byteTokenSpellings.map((token) => this.tokenId(token)) : [];
    this.#byteIds = new Set(byteIds.filter((id) => id !== undefined));
  }

  /** Tokens, added ones included. */
  get vocabSize(): number {
    return this.#pipeline.added.size;
  }

  get paddingSide(): 'left' | 'right' {
    const { padding_side: side } = this.config;
    return side === 'left' || side === 'right' ? side : (this.#parts.paddingSide ?? 'right');
  }

  /** What was found while loading that may surprise, one line each. */
  get warnings(): readonly string[] {
    return this.#parts.warnings ?? [];
  }

  /**
   * Texts of the special tokens that have a name (`bos_token`, `eos_token`, `unk_token`, `sep_token`, `pad_token`,
   * `cls_token`, `mask_token`, and the model's own), as Python's `special_tokens_map`.
   */
  get specialTokens(): Readonly<Record<string, string>> {
    return Object.fromEntries([...this.#parts.special.named].map(([name, { content }]) => [name, content]));
  }

  /** Id of a token's text; undefined when the vocabulary lacks it. */
  tokenId(token: string): number | undefined {
    return this.#pipeline.added.idOf(token);
  }

  get bosTokenId(): number | undefined {
    return this.#special('bos_token');
  }

  get eosTokenId(): number | undefined {
    return this.#special('eos_token');
  }

  /** The padding token; the end token when there is none. */
  get padTokenId(): number | undefined {
    return this.#special('pad_token') ?? this.eosTokenId;
  }

  /**
   * The ids of a text, or of a text and its pair.
   * @throws ConfigError for what is no text, and when the work takes too long (see `tokenizerLimits`).
   */
  encode(text: string, options: EncodeOptions = {}): number[] {
    assertKnownKeys('encode', options, encodeOptionNames);
    const fix = Array.isArray(text) ? 'use batchEncode for several texts' : undefined;
    return this.#encode(checkText('encode', 'text', text, fix), options, 'encode');
  }

  #encode(text: string, options: EncodeOptions, op: string): number[] {
    const splits = this.config.split_special_tokens === true;
    const { pair, addSpecialTokens = true, splitSpecialTokens = splits } = options;
    checkFlag(op, 'addSpecialTokens', addSpecialTokens);
    checkFlag(op, 'splitSpecialTokens', splitSpecialTokens);
    if (pair !== undefined) checkText(op, 'pair', pair);
    return this.#pipeline.encode(text, { pair, addSpecialTokens, splitSpecialTokens });
  }

  /**
   * The text of ids. Ids that no token has are passed over.
   * @throws ConfigError for what are no ids.
   */
  decode(ids: readonly number[], options: DecodeOptions = {}): string {
    assertKnownKeys('decode', options, ['skipSpecialTokens']);
    return this.#decode(checkIds('decode', 'ids', ids), options, 'decode');
  }

  #decode(ids: readonly number[], { skipSpecialTokens = false }: DecodeOptions, op: string): string {
    checkFlag(op, 'skipSpecialTokens', skipSpecialTokens);
    const text = this.#pipeline.decode(ids, skipSpecialTokens);
    // As in Python: BPE vocabularies hold their spaces, and cleaning up would lose some.
    const cleans = this.config.clean_up_tokenization_spaces === true && this.#pipeline.kind !== 'BPE';
    return cleans ? cleanUpSpaces(text) : text;
  }

  /** Bytes of a character are decoded together, so a later one can change what the earlier ones stand for. */
  isPartial(id: number): boolean {
    return this.#byteIds.has(id);
  }

  /** @throws ConfigError for what is no list of lists of ids. */
  batchDecode(batch: readonly (readonly number[])[], options: DecodeOptions = {}): string[] {
    assertKnownKeys('batchDecode', options, ['skipSpecialTokens']);
    const lists = checkList('batchDecode', 'batch', batch, 'give a list of lists of ids');
    return lists.map((ids, i) => this.#decode(checkIds('batchDecode', `batch[${i}]`, ids), options, 'batchDecode'));
  }

  /**
   * Several texts as a rectangle: ids padded on one side, and the mask (1 for tokens, 0 for padding).
   * @throws ConfigError when there is nothing to pad with, or a text is too long and may not be cut.
   */
  batchEncode(texts: readonly string[], options: PadOptions = {}): PaddedBatch {
    assertKnownKeys('batchEncode', options, padOptionNames);
    checkPadOptions(options);
    const { pair, addSpecialTokens, splitSpecialTokens, truncation, maxLength } = options;
    const { paddingSide = this.paddingSide } = options;
    const fix = typeof texts === 'string' ? 'use encode for one text' : 'give a list of strings';
    const list = checkList('batchEncode', 'texts', texts, fix);
    const encode = (text: string, special = addSpecialTokens) =>
      this.#encode(text, { pair, addSpecialTokens: special, splitSpecialTokens }, 'batchEncode');
    const rows = list.map((text, i) => {
      const one = checkText('batchEncode', `texts[${i}]`, text);
      const ids = encode(one);
      return truncation === true && ids.length > (maxLength ?? Infinity)
        ? truncated(ids, encode(one, false), options)
        : ids;
    });
    return padded(rows, { ...options, paddingSide }, this.padTokenId);
  }

  /**
   * A conversation as the model's prompt text, or as its ids with `tokenize`; a list of conversations as a list.
   * The template runs in a sandbox of bounded work.
   * @throws ConfigError for wrong messages and options, without a template, and when the template refuses or fails
   */
  applyChatTemplate(messages: readonly ChatMessage[], options?: ChatOptions & { tokenize?: false }): string;
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatOptions & { tokenize: true }): number[];
  applyChatTemplate(
    messages: readonly (readonly ChatMessage[])[],
    options?: ChatOptions & { tokenize?: false },
  ): string[];
  applyChatTemplate(
    messages: readonly (readonly ChatMessage[])[],
    options: ChatOptions & { tokenize: true },
  ): number[][];
  applyChatTemplate(messages: unknown, options: ChatOptions = {}): string | string[] | number[] | number[][] {
    const op = 'applyChatTemplate';
    assertKnownKeys(op, options, [...chatTemplateOptionNames, 'tokenize']);
    const { tokenize = false, ...rest } = options;
    checkFlag(op, 'tokenize', tokenize);
    const { batch, isBatch } = conversationsOf(op, messages);
    const texts = this.renderChat(op, batch, rest);
    if (!tokenize) return isBatch ? texts : texts[0];
    const ids = texts.map((text) => this.#encode(text, { addSpecialTokens: false }, op));
    return isBatch ? ids : ids[0];
  }

  /** Conversations as prompts. @param op the caller's function, for errors @internal */
  renderChat(op: string, batch: readonly Conversation[], options: ChatTemplateOptions): string[] {
    const host = { chatTemplate: this.config.chat_template, specialTokens: this.specialTokens };
    return this.#chatTemplates.render(op, host, batch, options);
  }

  #special(name: string): number | undefined {
    const content = this.#parts.special.named.get(name)?.content;
    return content === undefined ? this.#parts.configIds?.[name] : this.tokenId(content);
  }
}
