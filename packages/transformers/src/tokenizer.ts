import { Template } from '@huggingface/jinja';
import { Tokenizer as HubTokenizer } from '@huggingface/tokenizers';
import { assertKnownKeys, ConfigError } from '@q/config';
import type { TokenDecoder } from '@q/generate';
import { hubOptionNames, modelFolder, parseJson, readOptional, readRequired, type HubOptions } from './files.js';

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
  /** Length to pad to. Default: the longest text. */
  readonly maxLength?: number;
  /** Cut longer texts to maxLength. Default false. */
  readonly truncation?: boolean;
}

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

const contentOf = (token: unknown): string | undefined => (typeof token === 'string' ? token : (token as SpecialToken | null | undefined)?.content);

/** Text to token ids and back, as `tokenizer.json` says. Made by {@link AutoTokenizer}. */
export class Tokenizer implements TokenDecoder {
  readonly #tokenizer: HubTokenizer;

  constructor(
    tokenizerJson: Record<string, unknown>,
    /** `tokenizer_config.json`. */
    readonly config: Readonly<Record<string, unknown>>,
  ) {
    this.#tokenizer = new HubTokenizer(tokenizerJson, config);
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

  encode(text: string, { pair, addSpecialTokens = true }: EncodeOptions = {}): number[] {
    return this.#tokenizer.encode(text, { text_pair: pair ?? null, add_special_tokens: addSpecialTokens }).ids;
  }

  decode(ids: readonly number[], { skipSpecialTokens = false }: DecodeOptions = {}): string {
    if (ids.length === 0) return '';
    return this.#tokenizer.decode([...ids], { skip_special_tokens: skipSpecialTokens });
  }

  batchDecode(batch: readonly (readonly number[])[], options?: DecodeOptions): string[] {
    return batch.map((ids) => this.decode(ids, options));
  }

  /**
   * Several texts as a rectangle: ids padded on one side, and the mask (1 for tokens, 0 for padding).
   * @throws ConfigError when there is nothing to pad with, or a text is too long and may not be cut.
   */
  batchEncode(texts: readonly string[], options: PadOptions = {}): { inputIds: number[][]; attentionMask: number[][] } {
    const { paddingSide = this.paddingSide, truncation = false, maxLength, ...encode } = options;
    const lists = texts.map((text) => this.encode(text, encode));
    const longest = lists.reduce((max, ids) => Math.max(max, ids.length), 0);
    const length = maxLength ?? longest;
    if (longest > length && !truncation) throw new ConfigError('tokenizer', `a text has ${longest} tokens`, { maxLength: length, fix: 'set truncation to true or raise maxLength' });
    const pad = this.padTokenId;
    const rows = lists.map((ids) => {
      const kept = ids.slice(0, length);
      const missing = length - kept.length;
      if (missing > 0 && pad === undefined) throw new ConfigError('tokenizer', 'the tokenizer has no padding token', { fix: 'give texts of one length' });
      const filler = Array.from({ length: missing }, () => pad ?? 0);
      const [zeros, ones] = [filler.map(() => 0), kept.map(() => 1)];
      return paddingSide === 'left' ? { ids: [...filler, ...kept], mask: [...zeros, ...ones] } : { ids: [...kept, ...filler], mask: [...ones, ...zeros] };
    });
    return { inputIds: rows.map(({ ids }) => ids), attentionMask: rows.map(({ mask }) => mask) };
  }

  /**
   * A conversation as the model's prompt text.
   * @throws ConfigError when the tokenizer has no template, or the template refuses the messages.
   */
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatOptions = {}): string {
    const { addGenerationPrompt = true, chatTemplate = this.#template(), variables = {} } = options;
    if (chatTemplate === undefined) throw new ConfigError('tokenizer', 'this tokenizer has no chat template', { fix: 'pass chatTemplate, or write the prompt yourself' });
    const named = Object.fromEntries(['bos_token', 'eos_token', 'pad_token', 'unk_token'].map((key) => [key, contentOf(this.config[key])]).filter(([, value]) => value !== undefined));
    try {
      return new Template(chatTemplate).render({ messages, add_generation_prompt: addGenerationPrompt, ...named, ...variables });
    } catch (cause) {
      throw new ConfigError('tokenizer', `the chat template failed: ${(cause as Error).message}`, { cause });
    }
  }

  #special(key: string): number | undefined {
    const content = contentOf(this.config[key]);
    return content === undefined ? undefined : this.tokenId(content);
  }

  #template(): string | undefined {
    const { chat_template: template } = this.config;
    if (Array.isArray(template)) return (template as { name: string; template: string }[]).find(({ name }) => name === 'default')?.template;
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
    const folder = await modelFolder(idOrPath, options);
    return tokenizerOf(folder, await readRequired(folder, 'tokenizer.json'));
  },
};

/** The tokenizer of a folder; undefined when it has none. */
export async function optionalTokenizer(folder: string): Promise<Tokenizer | undefined> {
  const json = await readOptional(folder, 'tokenizer.json');
  return json === undefined ? undefined : tokenizerOf(folder, json);
}

async function tokenizerOf(folder: string, tokenizerJson: string): Promise<Tokenizer> {
  const config = parseJson((await readOptional(folder, 'tokenizer_config.json')) ?? '{}', folder, 'tokenizer_config.json');
  const template = await readOptional(folder, 'chat_template.jinja');
  return new Tokenizer(parseJson(tokenizerJson, folder, 'tokenizer.json'), template === undefined ? config : { ...config, chat_template: template });
}
