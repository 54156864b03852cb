// What callers give as prompts and ids, checked in their words.
import { ConfigError, describeValue } from '@q/config';
import { assertTokenIds } from '@q/generate';
import { chatTemplateOptionNames, type ChatMessage, type ChatTemplateOptions } from './chat/options.js';
import { encodePrompt, messageIds } from './chat/prompt.js';
import type { Tokenizer } from './tokenizer/tokenizer.js';

/**
 * What to continue: ids (padded with `attentionMask`, or of any lengths without), one prompt or several, or a
 * conversation or several, which go through the chat template with the options of {@link ChatTemplateOptions}.
 */
export interface PromptInput extends ChatTemplateOptions {
  readonly inputIds?: readonly (readonly number[])[];
  /** 1 for tokens, 0 for padding; shape of inputIds. */
  readonly attentionMask?: readonly (readonly number[])[];
  readonly prompt?: string;
  readonly prompts?: readonly string[];
  readonly messages?: readonly ChatMessage[] | readonly (readonly ChatMessage[])[];
  /**
   * Put the tokens before (and behind) a prompt that the tokenizer has for texts, such as the begin token; one that the
   * prompt already begins with is not doubled. For prompt and prompts. Default true.
   */
  readonly addSpecialTokens?: boolean;
}

export const promptInputNames = [
  'inputIds',
  'attentionMask',
  'prompt',
  'prompts',
  'messages',
  'addSpecialTokens',
  ...chatTemplateOptionNames,
] as const satisfies readonly (keyof PromptInput)[];

/** Options that go with one kind of input only are refused with another. */
function refuseStray(input: PromptInput): void {
  const { inputIds, attentionMask, messages, addSpecialTokens } = input;
  const refuse = (name: string, place: string) => {
    throw new ConfigError('generate', `${name} goes with ${place}`, { fix: 'leave it out' });
  };
  if (attentionMask !== undefined && inputIds === undefined) refuse('attentionMask', 'inputIds');
  if (addSpecialTokens !== undefined && (inputIds !== undefined || messages !== undefined))
    refuse('addSpecialTokens', 'prompt and prompts');
  const stray = chatTemplateOptionNames.find((name) => input[name] !== undefined);
  if (stray && messages === undefined) refuse(stray, 'messages');
}

/** The token ids of each prompt. @throws ConfigError unless exactly one kind of input is given, and it is right */
export function promptIds(
  input: PromptInput,
  tokenizer: Tokenizer | undefined,
  vocabSize: number,
): (readonly number[])[] {
  const { inputIds, attentionMask, prompt, prompts, messages, addSpecialTokens } = input;
  const given = [inputIds, prompt, prompts, messages].filter((value) => value !== undefined).length;
  if (given !== 1)
    throw new ConfigError('generate', `got ${given} of inputIds, prompt, prompts and messages`, {
      fix: 'give exactly one',
    });
  refuseStray(input);
  if (inputIds !== undefined) {
    assertIdLists('generate', inputIds, vocabSize);
    const empty = inputIds.findIndex((ids) => ids.length === 0);
    if (empty >= 0)
      throw new ConfigError('generate', `inputIds[${empty}] is an empty list`, {
        fix: 'give at least one token, such as the beginning-of-sequence token',
      });
    return withoutPadding('generate', inputIds, attentionMask);
  }
  if (messages !== undefined) return messageIds(needed(tokenizer), input);
  const texts = prompts === undefined ? [textOf('prompt', prompt, 'give prompts for several')] : textsOf(prompts);
  const encoder = needed(tokenizer);
  return texts.map((text) => encodePrompt(encoder, text, addSpecialTokens));
}

function needed(tokenizer: Tokenizer | undefined): Tokenizer {
  if (tokenizer) return tokenizer;
  throw new ConfigError('generate', 'the model has no tokenizer', { fix: 'give inputIds' });
}

function textOf(name: string, value: unknown, fix = 'give a string'): string {
  if (typeof value === 'string') return value;
  throw new ConfigError('generate', `${name} is ${describeValue(value)}`, { why: 'it must be a string', fix });
}

function textsOf(prompts: unknown): string[] {
  if (!Array.isArray(prompts))
    throw new ConfigError('generate', `prompts is ${describeValue(prompts)}`, {
      why: 'it must be a list of strings',
      fix: 'give one string as prompt',
    });
  if (prompts.length === 0) throw new ConfigError('generate', 'prompts is an empty list', { fix: 'give at least one' });
  return Array.from(prompts, (text: unknown, i) => textOf(`prompts[${i}]`, text));
}

/**
 * @param name of the ids, as the caller wrote it
 * @throws ConfigError unless inputIds is a list of lists of token ids
 */
export function assertIdLists(
  op: string,
  inputIds: unknown,
  vocabSize: number,
  name = 'inputIds',
): asserts inputIds is readonly (readonly number[])[] {
  if (!Array.isArray(inputIds) || inputIds.length === 0)
    throw new ConfigError(op, `${name} is ${describeValue(inputIds)}`, {
      why: 'it must be a list of lists of token ids, one list for each sequence',
    });
  if (inputIds.every((id) => ['number', 'bigint'].includes(typeof id)))
    throw new ConfigError(op, `${name} is a flat list`, {
      why: 'it must hold a list of token ids for each sequence',
      fix: `give ${name}: [ids]`,
    });
  for (let i = 0; i < inputIds.length; i++) assertTokenIds(op, `${name}[${i}]`, inputIds[i], vocabSize);
}

const isMaskRow = (row: unknown, length: number): boolean =>
  Array.isArray(row) && row.length === length && row.every((value) => value === 0 || value === 1);

const lengthsOf = (rows: unknown): unknown =>
  Array.isArray(rows) ? rows.map((row) => (Array.isArray(row) ? row.length : describeValue(row))) : describeValue(rows);

/** Names of ids and of their mask, as the caller wrote them. */
export interface IdNames {
  readonly ids: string;
  readonly mask: string;
}

const encoderNames: IdNames = { ids: 'inputIds', mask: 'attentionMask' };

/** The ids where the mask is 1; all of them without a mask. @throws ConfigError when shapes differ. */
export function withoutPadding(
  op: string,
  inputIds: readonly (readonly number[])[],
  attentionMask?: readonly (readonly number[])[],
  names = encoderNames,
): (readonly number[])[] {
  if (attentionMask === undefined) return inputIds.map((row) => [...row]);
  const fits =
    Array.isArray(attentionMask) &&
    attentionMask.length === inputIds.length &&
    inputIds.every((row, i) => isMaskRow(attentionMask[i], row.length));
  if (!fits)
    throw new ConfigError(op, `${names.mask} must hold a 0 or 1 for each of the ${names.ids}`, {
      [names.ids]: lengthsOf(inputIds),
      [names.mask]: lengthsOf(attentionMask),
    });
  return inputIds.map((row, i) => row.filter((_, j) => attentionMask[i][j] === 1));
}

/** @throws ConfigError unless `rows` has the shape of `inputIds` and integers from 0 to `limit` - 1 */
export function assertMatrix(
  op: string,
  name: string,
  rows: unknown,
  inputIds: readonly (readonly number[])[],
  limit: number,
): void {
  const fits =
    Array.isArray(rows) &&
    rows.length === inputIds.length &&
    inputIds.every((row, i) => Array.isArray(rows[i]) && (rows[i] as unknown[]).length === row.length);
  if (!fits)
    throw new ConfigError(op, `${name} must have the shape of inputIds`, {
      inputIds: lengthsOf(inputIds),
      [name]: lengthsOf(rows),
    });
  for (const [i, row] of (rows as unknown[][]).entries())
    for (const [j, value] of row.entries())
      if (!Number.isInteger(value) || (value as number) < 0 || (value as number) >= limit)
        throw new ConfigError(op, `${name}[${i}][${j}] is ${describeValue(value)}`, {
          why: `it must be an integer from 0 to ${limit - 1}`,
        });
}
