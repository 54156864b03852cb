// Prompts to token ids, with the tokens that the tokenizer adds exactly once.
import type { Tokenizer } from '../tokenizer/tokenizer.js';
import { chatTemplateOptionNames, conversationsOf, type ChatTemplateOptions } from './options.js';

const startsWith = (ids: readonly number[], start: readonly number[]): boolean => start.every((id, i) => ids[i] === id);

/**
 * The ids of a text. Where the text itself begins with the tokens that the tokenizer puts before texts (a chat template
 * wrote them), they are not put there again.
 */
export function encodePrompt(
  tokenizer: Pick<Tokenizer, 'encode' | 'decode'>,
  text: string,
  addSpecialTokens = true,
): number[] {
  const ids = tokenizer.encode(text, { addSpecialTokens });
  if (!addSpecialTokens || ids.length < 2) return ids;
  const first = tokenizer.decode([ids[0]]);
  if (first === '' || !text.trimStart().startsWith(first.trim())) return ids;
  const plain = tokenizer.encode(text, { addSpecialTokens: false });
  const added = ids.length - plain.length;
  for (let count = added; count > 0; count--)
    if (startsWith(ids.slice(count), plain)) return startsWith(plain, ids.slice(0, count)) ? ids.slice(count) : ids;
  return ids;
}

/**
 * The ids of conversations, through the chat template, which writes all special tokens itself.
 * @throws ConfigError as applyChatTemplate
 */
export function messageIds(
  tokenizer: Pick<Tokenizer, 'renderChat' | 'encode'>,
  { messages, ...options }: ChatTemplateOptions & { readonly messages?: unknown },
): number[][] {
  const { batch } = conversationsOf('generate', messages);
  const chosen = Object.fromEntries(
    chatTemplateOptionNames.filter((name) => options[name] !== undefined).map((name) => [name, options[name]]),
  );
  return tokenizer
    .renderChat('generate', batch, chosen)
    .map((text) => tokenizer.encode(text, { addSpecialTokens: false }));
}
