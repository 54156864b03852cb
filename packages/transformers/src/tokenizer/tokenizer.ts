import { Template } from '@huggingface/jinja';
import { assertKnownKeys, ConfigError } from '@q/config';
import type { TokenDecoder } from '@q/generate';
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

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
  readonly [key: string]: unknown;
}

export interface ChatOptions {
  /** End with what opens an answer. Default true. */
  readonly addGenerationPrompt?: boolean;
  /** A Jinja template instead of the tokenizer's own. */
  readonly chatTemplate?: string;
  /** Further variables of the template, such as `tools`. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

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

  /**
   * @param tokenizerJson contents of `tokenizer.json`
   * @param config contents of `tokenizer_config.json`
   * @throws CheckpointError that names the file and the section that is wrong
   */
  constructor(
    tokenizerJson: Readonly<Record<string, unknown>>,
    readonly config: Readonly<Record<string, unknown>> = {},
    /** @internal */
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

  #encode(text: string, { pair, addSpecialTokens = true }: EncodeOptions, op: string): number[] {
    checkFlag(op, 'addSpecialTokens', addSpecialTokens);
    if (pair !== undefined) checkText(op, 'pair', pair);
    return this.#pipeline.encode(text, pair, addSpecialTokens);
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
    const { pair, addSpecialTokens, truncation, maxLength, paddingSide = this.paddingSide } = options;
    const fix = typeof texts === 'string' ? 'use encode for one text' : 'give a list of strings';
    const list = checkList('batchEncode', 'texts', texts, fix);
    const encode = (text: string, special = addSpecialTokens) =>
      this.#encode(text, { pair, addSpecialTokens: special }, 'batchEncode');
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
   * A conversation as the model's prompt text.
   * @throws ConfigError when the tokenizer has no template, or the template refuses the messages.
   */
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatOptions = {}): string {
    const { addGenerationPrompt = true, chatTemplate = this.#template(), variables = {} } = options;
    if (chatTemplate === undefined)
      throw new ConfigError('tokenizer', 'this tokenizer has no chat template', {
        fix: 'pass chatTemplate, or write the prompt yourself',
      });
    try {
      return new Template(chatTemplate).render({
        messages,
        add_generation_prompt: addGenerationPrompt,
        ...this.specialTokens,
        ...variables,
      });
    } catch (cause) {
      throw new ConfigError('tokenizer', `the chat template failed: ${(cause as Error).message}`, { cause });
    }
  }

  #special(name: string): number | undefined {
    const content = this.#parts.special.named.get(name)?.content;
    return content === undefined ? this.#parts.configIds?.[name] : this.tokenId(content);
  }

  #template(): string | undefined {
    const { chat_template: template } = this.config;
    if (Array.isArray(template))
      return (template as { name: string; template: string }[]).find(({ name }) => name === 'default')?.template;
    return typeof template === 'string' ? template : undefined;
  }
}
