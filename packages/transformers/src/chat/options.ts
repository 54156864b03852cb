// What a caller may ask of a chat template, checked.
import { assertKnownKeys, ConfigError } from '@q/config';
import type { TemplateLimits } from './jinja/errors.js';
import { TEMPLATE_LIMITS } from '../limits.js';

export type { TemplateLimits } from './jinja/errors.js';

/** A part of a message's content, such as `{ type: 'text', text: '...' }`. */
export type ContentPart = Readonly<Record<string, unknown>>;

export interface ChatMessage {
  readonly role: string;
  /** Text, parts, or nothing (calls of tools alone). */
  readonly content?: string | readonly ContentPart[] | null;
  readonly [key: string]: unknown;
}

/** What a template is given; shared by `applyChatTemplate` and `generate({ messages })`. */
export interface ChatTemplateOptions {
  /** End with what opens an answer. Default true, and false with continueFinalMessage. */
  readonly addGenerationPrompt?: boolean;
  /**
   * Leave the last message open, to be continued: end right behind its text. A string names another field than
   * `content`. Default false.
   */
  readonly continueFinalMessage?: boolean | string;
  /** The name of one of the tokenizer's templates, or the text of a Jinja template. Default: its own. */
  readonly chatTemplate?: string;
  /** JSON schemas of functions that the model may call; the template `tool_use` is taken where there is one. */
  readonly tools?: readonly Readonly<Record<string, unknown>>[];
  /** Texts to answer from, for templates that know them: objects with `title` and `text`. */
  readonly documents?: readonly Readonly<Record<string, unknown>>[];
  /** Further variables of the template, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>>;
  /** What rendering may cost; each of {@link TemplateLimits} can be raised. */
  readonly templateLimits?: Partial<TemplateLimits>;
}

export interface ChatOptions extends ChatTemplateOptions {
  /** Give token ids instead of text. Default false. */
  readonly tokenize?: boolean;
}

export const chatTemplateOptionNames = [
  'addGenerationPrompt',
  'continueFinalMessage',
  'chatTemplate',
  'tools',
  'documents',
  'variables',
  'templateLimits',
] as const satisfies readonly (keyof ChatTemplateOptions)[];

export const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const show = (value: unknown): string =>
  value === null
    ? 'null'
    : Array.isArray(value)
      ? 'a list'
      : value === undefined
        ? 'undefined'
        : `${typeof value === 'object' ? 'an' : 'a'} ${typeof value}`;

/** Everything decided: what the template gets beside the messages and the tokenizer's tokens. */
export interface ResolvedChatOptions {
  readonly addGenerationPrompt: boolean;
  /** The field to continue. */
  readonly continued: string | undefined;
  readonly chatTemplate: string | undefined;
  readonly tools: readonly unknown[] | null;
  readonly documents: readonly unknown[] | null;
  readonly variables: Readonly<Record<string, unknown>>;
  readonly limits: TemplateLimits;
}

// Names of the template that have an option of their own.
const optionOf: Readonly<Record<string, keyof ChatTemplateOptions>> = {
  tools: 'tools',
  documents: 'documents',
  add_generation_prompt: 'addGenerationPrompt',
};

/** @param op the caller's function @throws ConfigError naming the option */
export function resolveChatOptions(op: string, options: ChatTemplateOptions): ResolvedChatOptions {
  const { chatTemplate, continueFinalMessage = false, ...given } = options;
  check(op, 'chatTemplate', chatTemplate, 'the name or text of a template', (value) => typeof value === 'string');
  check(op, 'continueFinalMessage', continueFinalMessage, 'a boolean or the name of a field', (value) =>
    ['boolean', 'string'].includes(typeof value),
  );
  const { variables, ...merged } = mergeVariables(op, given);
  check(op, 'addGenerationPrompt', merged.addGenerationPrompt, 'a boolean', (value) => typeof value === 'boolean');
  for (const name of ['tools', 'documents'] as const)
    check(op, name, merged[name], 'a list of objects', (value) => Array.isArray(value) && value.every(isObject));
  const continued = continueFinalMessage === true ? 'content' : continueFinalMessage || undefined;
  if (continued !== undefined && merged.addGenerationPrompt === true)
    throw new ConfigError(op, 'continueFinalMessage and addGenerationPrompt are both set', {
      why: 'one continues the last message, the other opens a new one',
      fix: 'leave one out',
    });
  return {
    addGenerationPrompt: merged.addGenerationPrompt ?? continued === undefined,
    continued,
    chatTemplate,
    tools: merged.tools ?? null,
    documents: merged.documents ?? null,
    variables,
    limits: resolveLimits(op, options.templateLimits),
  };
}

function check(op: string, name: string, value: unknown, wanted: string, passes: (value: unknown) => boolean): void {
  if (value !== undefined && !(value === null && name !== 'chatTemplate') && !passes(value))
    throw new ConfigError(op, `${name} must be ${wanted}`, { got: show(value) });
}

/** Variables that have an option of their own become it. */
function mergeVariables(op: string, { variables = {}, ...given }: ChatTemplateOptions) {
  if (!isObject(variables)) throw new ConfigError(op, 'variables must be an object', { got: show(variables) });
  if ('messages' in variables)
    throw new ConfigError(op, 'variables holds messages', { fix: 'give the messages themselves' });
  const rest: Record<string, unknown> = { ...variables };
  const merged: Record<string, unknown> = { ...given };
  for (const [variable, option] of Object.entries(optionOf)) {
    if (!Object.hasOwn(rest, variable)) continue;
    if (merged[option] !== undefined)
      throw new ConfigError(op, `${option} is given twice, also as ${variable} of variables`, { fix: 'leave one out' });
    merged[option] = rest[variable];
    delete rest[variable];
  }
  return { ...(merged as Omit<ChatTemplateOptions, 'variables'>), variables: rest };
}

function resolveLimits(op: string, given: Partial<TemplateLimits> | undefined): TemplateLimits {
  if (given === undefined) return TEMPLATE_LIMITS;
  if (!isObject(given)) throw new ConfigError(op, 'templateLimits must be an object', { got: show(given) });
  assertKnownKeys(`${op} templateLimits`, given, Object.keys(TEMPLATE_LIMITS));
  const limits = { ...TEMPLATE_LIMITS };
  for (const name of Object.keys(TEMPLATE_LIMITS) as (keyof TemplateLimits)[]) {
    const value = given[name] ?? limits[name];
    if (!(typeof value === 'number' && value > 0))
      throw new ConfigError(op, `templateLimits.${name} must be a positive number`, { got: value });
    limits[name] = value;
  }
  return limits;
}

export type Conversation = readonly ChatMessage[];

/** One conversation or several as several. @throws ConfigError in the caller's words */
export function conversationsOf(op: string, messages: unknown): { batch: readonly Conversation[]; isBatch: boolean } {
  const hint = 'give a list of objects with role and content, such as [{ role: "user", content: "..." }]';
  if (!Array.isArray(messages))
    throw new ConfigError(op, `messages must be a list, not ${show(messages)}`, { fix: hint });
  const list = messages as readonly unknown[];
  if (list.length === 0) throw new ConfigError(op, 'messages is empty', { fix: hint });
  const isBatch = Array.isArray(list[0]);
  const batch = (isBatch ? list : [list]) as readonly unknown[];
  batch.forEach((conversation, i) => {
    const name = isBatch ? `messages[${i}]` : 'messages';
    if (!Array.isArray(conversation))
      throw new ConfigError(op, `${name} must be a list, as messages[0] is`, { fix: hint });
    if (conversation.length === 0) throw new ConfigError(op, `${name} is empty`, { fix: hint });
    conversation.forEach((message: unknown, j) => checkMessage(op, `${name}[${j}]`, message, hint));
  });
  return { batch: batch as readonly Conversation[], isBatch };
}

function checkMessage(op: string, name: string, message: unknown, fix: string): void {
  if (!isObject(message)) throw new ConfigError(op, `${name} must be an object, not ${show(message)}`, { fix });
  const { role, content } = message;
  if (typeof role !== 'string') throw new ConfigError(op, `${name}.role must be a text, not ${show(role)}`, { fix });
  const fits = (content ?? null) === null || typeof content === 'string' || Array.isArray(content) || isObject(content);
  if (!fits)
    throw new ConfigError(op, `${name}.content must be a text or a list of parts, not ${show(content)}`, { fix });
}
