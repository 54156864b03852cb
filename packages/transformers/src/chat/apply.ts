// Conversations to prompts, as Python's apply_chat_template.
import { ConfigError, QError } from '@q/config';
import { MAX_TEMPLATES_KEPT } from '../limits.js';
import { LimitError, RaisedError, TemplateError } from './jinja/errors.js';
import { Template } from './jinja/template.js';
import { isBlank, trim, trimEnd } from './jinja/whitespace.js';
import {
  isObject,
  resolveChatOptions,
  type ChatTemplateOptions,
  type Conversation,
  type ResolvedChatOptions,
} from './options.js';
import { chooseTemplate } from './templates.js';

const TAG = 'CONTINUE_FINAL_MESSAGE_TAG ';

/** What a chat template gets from its tokenizer. */
export interface TemplateHost {
  /** `chat_template` of the tokenizer's config. */
  readonly chatTemplate: unknown;
  /** `bos_token` and the like, by the names that Python gives them. */
  readonly specialTokens: Readonly<Record<string, string>>;
}

const nameOfLimit = { size: 'size', steps: 'steps', length: 'length', range: 'range' } as const;

/** Failures of a template as errors of the API. */
function translated<T>(op: string, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    if (cause instanceof QError || !(cause instanceof TemplateError)) throw cause;
    if (cause instanceof RaisedError)
      throw new ConfigError(op, `the chat template refuses these messages: ${cause.message}`, { cause });
    if (!(cause instanceof LimitError))
      throw new ConfigError(op, `the chat template failed: ${cause.message}`, { cause });
    throw new ConfigError(op, cause.message, {
      cause,
      fix: cause.limit
        ? `if you trust this template, raise templateLimits.${nameOfLimit[cause.limit]}`
        : 'use another template',
    });
  }
}

/** Renders the templates of one tokenizer; keeps those that it parsed. */
export class ChatTemplates {
  readonly #parsed = new Map<string, Template>();

  /**
   * @param op the caller's function, for errors
   * @returns a prompt for each conversation
   * @throws ConfigError when there is no such template, or it refuses, fails, or does more than its limits
   */
  render(op: string, host: TemplateHost, batch: readonly Conversation[], options: ChatTemplateOptions): string[] {
    const resolved = resolveChatOptions(op, options);
    const source = chooseTemplate(host.chatTemplate, resolved.chatTemplate, resolved.tools !== null);
    return translated(op, () => {
      const template = this.#template(source, resolved);
      return batch.map((messages) => renderOne(op, template, host, messages, resolved));
    });
  }

  #template(source: string, { limits }: ResolvedChatOptions): Template {
    const kept = this.#parsed.get(source);
    if (kept && source.length <= limits.size) return kept;
    const template = new Template(source, limits);
    if (this.#parsed.size >= MAX_TEMPLATES_KEPT) this.#parsed.delete([...this.#parsed.keys()][0]);
    this.#parsed.set(source, template);
    return template;
  }
}

function renderOne(
  op: string,
  template: Template,
  { specialTokens }: TemplateHost,
  messages: Conversation,
  { continued, tools, documents, addGenerationPrompt, variables, limits }: ResolvedChatOptions,
): string {
  const open = continued === undefined ? undefined : openMessage(op, template.source, messages, continued);
  const text = template.render(
    {
      ...specialTokens,
      ...variables,
      messages: open?.messages ?? messages,
      tools,
      documents,
      add_generation_prompt: addGenerationPrompt,
    },
    limits,
  );
  return open ? cutAtTag(op, text, open.text) : text;
}

/** The messages with a mark behind the text that is to be continued, and that text. */
function openMessage(op: string, source: string, messages: Conversation, field: string) {
  const last = messages[messages.length - 1];
  const value: unknown = Object.hasOwn(last, field) ? last[field] : undefined;
  const nothing = (what: string) =>
    new ConfigError(op, `continueFinalMessage is set, but ${what}`, {
      fix: 'end with a message that has text to continue',
    });
  if ((value ?? null) === null) throw nothing(`the last message has no ${field}`);
  if (!source.includes(field)) throw nothing(`the chat template does not read ${field}`);
  const replaced = (content: unknown) => [...messages.slice(0, -1), { ...last, [field]: content }] as Conversation;
  if (typeof value === 'string') return { text: value, messages: replaced(value + TAG) };
  const parts: readonly unknown[] = Array.isArray(value) ? (value as unknown[]) : [];
  const at = parts.findLastIndex((part) => isObject(part) && typeof part.text === 'string');
  if (at < 0) throw nothing('the last message has no text');
  const part = parts[at] as { text: string };
  return { text: part.text, messages: replaced(parts.with(at, { ...part, text: part.text + TAG })) };
}

/** The prompt up to the mark. A template that trims messages leaves the white space before it out. */
function cutAtTag(op: string, rendered: string, text: string): string {
  const at = rendered.lastIndexOf(trim(TAG));
  const shown = trim(text);
  if (at < 0 || !(isBlank(shown) || rendered.includes(shown)))
    throw new ConfigError(op, 'continueFinalMessage is set, but the last message is not in the rendered text', {
      why: 'the chat template leaves out or changes it',
      fix: 'open an answer with addGenerationPrompt instead',
    });
  const start = rendered.slice(0, at);
  return rendered.startsWith(TAG, at) ? start : trimEnd(start);
}
