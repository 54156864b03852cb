import { Template } from '@huggingface/jinja';
import { Tokenizer as HubTokenizer } from '@huggingface/tokenizers';
import { assertKnownKeys, ConfigError } from '@q/config';
import type { TokenDecoder } from '@q/generate';
import { byteTokenSpellings, useByteRuns } from './byte-fallback.js';
import {
  hubOptionNames,
  missingFile,
  modelFolder,
  parseJson,
  readBytes,
  readOptional,
  type HubOptions,
} from './files.js';
import { withTokenizerParts, type TokenizerParts } from './tokenizer-parts.js';

export interface EncodeOptions {
  /** Second text of a pair. */
  readonly pair?: string;
  /** Add what the tokenizer's template adds (beginning of text and such). Default true. */
  readonly addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leave special tokens out. Default false. */
  readonly skipSpecialTokens?: boolean;
}

export interface PadOptions extends EncodeOptions {
  readonly paddingSide?: 'left' | 'right';
  /** Pad to the longest text of the batch, or to maxLength. Default `longest`. */
  readonly padding?: 'longest' | 'maxLength';
  /** Most tokens of a text, those of the template included. Default: no limit. */
  readonly maxLength?: number;
  /** Cut longer texts to maxLength, at the end and without losing tokens of the template. Default false. */
  readonly truncation?: boolean;
  /** Round the padded length up to a multiple. Default 1. */
  readonly padToMultipleOf?: number;
}

const encodeOptionNames = ['pair', 'addSpecialTokens'] as const;
const padOptionNames = [
  ...encodeOptionNames,
  'paddingSide',
  'padding',
  'maxLength',
  'truncation',
  'padToMultipleOf',
] as const;

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

interface SpecialToken {
  readonly content: string;
}

interface PostProcessor {
  readonly type: string;
  readonly processors?: readonly PostProcessor[];
}

/** Whether the post-processor has a place for the second text of a pair; without one the texts follow each other. */
const joinsPairs = (processor: PostProcessor | null | undefined): boolean =>
  processor?.type === 'Sequence'
    ? (processor.processors ?? []).some(joinsPairs)
    : ['TemplateProcessing', 'BertProcessing', 'RobertaProcessing'].includes(processor?.type ?? '');

const contentOf = (token: unknown): string | undefined =>
  typeof token === 'string' ? token : (token as SpecialToken | null | undefined)?.content;

/** Text to token ids and back, as `tokenizer.json` says. Made by {@link AutoTokenizer}. */
export class Tokenizer implements TokenDecoder {
  readonly #tokenizer: HubTokenizer;
  #byteIds: ReadonlySet<number> = new Set();
  readonly #hasByteRuns: boolean;
  readonly #joinsPairs: boolean;

  constructor(
    tokenizerJson: Record<string, unknown>,
    /** `tokenizer_config.json`. */
    readonly config: Readonly<Record<string, unknown>>,
  ) {
    this.#tokenizer = new HubTokenizer(tokenizerJson, config);
    this.#hasByteRuns = useByteRuns(this.#tokenizer.decoder);
    this.#findByteIds();
    this.#joinsPairs = joinsPairs(tokenizerJson.post_processor as PostProcessor | null | undefined);
  }

  /** As the constructor, for parts of a large `tokenizer.json`. @internal */
  static async fromParts(
    { json, fill }: TokenizerParts,
    config: Readonly<Record<string, unknown>>,
  ): Promise<Tokenizer> {
    const tokenizer = new Tokenizer(json, config);
    await fill(tokenizer.#tokenizer);
    tokenizer.#findByteIds();
    return tokenizer;
  }

  #findByteIds(): void {
    if (this.#hasByteRuns)
      this.#byteIds = new Set(byteTokenSpellings.map((token) => this.tokenId(token)).filter((id) => id !== undefined));
  }

  get vocabSize(): number {
    return this.#tokenizer.get_vocab().size;
  }

  get paddingSide(): 'left' | 'right' {
    return this.config.padding_side === 'left' ? 'left' : 'right';
  }

  /** Id of a token's text; undefined when the vocabulary lacks it. */
  tokenId(token: string): number | undefined {
    return this.#tokenizer.token_to_id(token);
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

  encode(text: string, options: EncodeOptions = {}): number[] {
    assertKnownKeys('encode', options, encodeOptionNames);
    const { pair, addSpecialTokens = true } = options;
    if (pair !== undefined && !this.#joinsPairs)
      return [...this.encode(text, { addSpecialTokens }), ...this.encode(pair, { addSpecialTokens })];
    return this.#tokenizer.encode(text, { text_pair: pair ?? null, add_special_tokens: addSpecialTokens }).ids;
  }

  decode(ids: readonly number[], options: DecodeOptions = {}): string {
    assertKnownKeys('decode', options, ['skipSpecialTokens']);
    if (ids.length === 0) return '';
    return this.#tokenizer.decode([...ids], { skip_special_tokens: options.skipSpecialTokens ?? false });
  }

  /** Bytes of a character are decoded together, so a later one can change what the earlier ones stand for. */
  isPartial(id: number): boolean {
    return this.#byteIds.has(id);
  }

  batchDecode(batch: readonly (readonly number[])[], options?: DecodeOptions): string[] {
    return batch.map((ids) => this.decode(ids, options));
  }

  /**
   * Several texts as a rectangle: ids padded on one side, and the mask (1 for tokens, 0 for padding).
   * @throws ConfigError when there is nothing to pad with, or a text is too long and may not be cut.
   */
  batchEncode(texts: readonly string[], options: PadOptions = {}): { inputIds: number[][]; attentionMask: number[][] } {
    assertKnownKeys('batchEncode', options, padOptionNames);
    const {
      paddingSide = this.paddingSide,
      padding = 'longest',
      truncation = false,
      maxLength,
      padToMultipleOf = 1,
      ...encode
    } = options;
    if (padding !== 'longest' && padding !== 'maxLength')
      throw new ConfigError('tokenizer', `padding is "${String(padding)}"`, { fix: 'use "longest" or "maxLength"' });
    if (maxLength === undefined && (truncation || padding === 'maxLength'))
      throw new ConfigError('tokenizer', 'maxLength is missing', { padding, truncation });
    const lists = texts.map((text) =>
      truncation ? this.#truncated(text, encode, maxLength!) : this.encode(text, encode),
    );
    const longest = lists.reduce((max, ids) => Math.max(max, ids.length), 0);
    if (longest > (maxLength ?? longest))
      throw new ConfigError('tokenizer', `a text has ${longest} tokens`, {
        maxLength,
        fix: 'set truncation to true or raise maxLength',
      });
    const length = Math.ceil((padding === 'maxLength' ? maxLength! : longest) / padToMultipleOf) * padToMultipleOf;
    const rows = lists.map((ids) => this.#padded(ids, length, paddingSide));
    return { inputIds: rows.map(({ ids }) => ids), attentionMask: rows.map(({ mask }) => mask) };
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
    const named = Object.fromEntries(
      ['bos_token', 'eos_token', 'pad_token', 'unk_token']
        .map((key) => [key, contentOf(this.config[key])])
        .filter(([, value]) => value !== undefined),
    );
    try {
      return new Template(chatTemplate).render({
        messages,
        add_generation_prompt: addGenerationPrompt,
        ...named,
        ...variables,
      });
    } catch (cause) {
      throw new ConfigError('tokenizer', `the chat template failed: ${(cause as Error).message}`, { cause });
    }
  }

  /** The ids of a text, cut so that it has at most `maxLength` with what the template adds before and after it. */
  #truncated(text: string, options: EncodeOptions, maxLength: number): number[] {
    const ids = this.encode(text, options);
    if (ids.length <= maxLength) return ids;
    if (options.pair !== undefined)
      throw new ConfigError('tokenizer', 'pairs cannot be truncated', { fix: 'shorten the texts' });
    const plain = this.encode(text, { addSpecialTokens: false });
    const added = ids.length - plain.length;
    const before =
      Array.from({ length: added + 1 }, (_, at) => at).find((at) => plain.every((id, i) => id === ids[at + i])) ?? 0;
    if (added > maxLength) throw new ConfigError('tokenizer', `the template alone adds ${added} tokens`, { maxLength });
    return [...ids.slice(0, before), ...plain.slice(0, maxLength - added), ...ids.slice(before + plain.length)];
  }

  #padded(ids: readonly number[], length: number, side: 'left' | 'right'): { ids: number[]; mask: number[] } {
    const pad = this.padTokenId;
    const missing = length - ids.length;
    if (missing > 0 && pad === undefined)
      throw new ConfigError('tokenizer', 'the tokenizer has no padding token', { fix: 'give texts of one length' });
    const filler = Array.from({ length: missing }, () => pad ?? 0);
    const [zeros, ones] = [filler.map(() => 0), ids.map(() => 1)];
    return side === 'left'
      ? { ids: [...filler, ...ids], mask: [...zeros, ...ones] }
      : { ids: [...ids, ...filler], mask: [...ones, ...zeros] };
  }

  #special(key: string): number | undefined {
    const content = contentOf(this.config[key]);
    return content === undefined ? undefined : this.tokenId(content);
  }

  #template(): string | undefined {
    const { chat_template: template } = this.config;
    if (Array.isArray(template))
      return (template as { name: string; template: string }[]).find(({ name }) => name === 'default')?.template;
    return typeof template === 'string' ? template : undefined;
  }
}

/** Loads tokenizers. */
export const AutoTokenizer = {
  /**
   * @param idOrPath folder, Hub id, or `@q/nano`
   * @throws CheckpointError when the model has no `tokenizer.json`.
   */
  async fromPretrained(idOrPath: string, options: HubOptions = {}): Promise<Tokenizer> {
    assertKnownKeys('AutoTokenizer.fromPretrained', options, hubOptionNames);
    const folder = await modelFolder(idOrPath, { ...options, files: 'tokenizer' });
    const tokenizer = await optionalTokenizer(folder);
    if (!tokenizer) throw missingFile(folder, 'tokenizer.json');
    return tokenizer;
  },
};

/** The tokenizer of a folder; undefined when it has none. @param options.small see {@link withTokenizerParts} */
export async function optionalTokenizer(
  folder: string,
  options: { small?: number } = {},
): Promise<Tokenizer | undefined> {
  const bytes = await readBytes(folder, 'tokenizer.json');
  if (bytes === undefined) return undefined;
  const config = parseJson(
    (await readOptional(folder, 'tokenizer_config.json')) ?? '{}',
    folder,
    'tokenizer_config.json',
  );
  const template = await readOptional(folder, 'chat_template.jinja');
  const parse = (text: string) => parseJson(text, folder, 'tokenizer.json');
  return withTokenizerParts(
    bytes,
    parse,
    (parts) => Tokenizer.fromParts(parts, template === undefined ? config : { ...config, chat_template: template }),
    options,
  );
}
