// What callers give as prompts and ids, checked in their words.
import { ConfigError, describeValue } from '@q/config';
import { assertTokenIds } from '@q/generate';
import type { Tokenizer } from './tokenizer/tokenizer.js';

/** What to continue: ids (padded with `attentionMask`, or of any lengths without), one prompt, or several. */
export interface PromptInput {
  readonly inputIds?: readonly (readonly number[])[];
  /** 1 for tokens, 0 for padding; shape of inputIds. */
  readonly attentionMask?: readonly (readonly number[])[];
  readonly prompt?: string;
  readonly prompts?: readonly string[];
}

/** The token ids of each prompt. @throws ConfigError unless exactly one kind of input is given, and it is right */
export function promptIds(
  { inputIds, attentionMask, prompt, prompts }: PromptInput,
  tokenizer: Tokenizer | undefined,
  vocabSize: number,
): (readonly number[])[] {
  const given = [inputIds, prompt, prompts].filter((value) => value !== undefined).length;
  if (given !== 1)
    throw new ConfigError('generate', `got ${given} of inputIds, prompt and prompts`, { fix: 'give exactly one' });
  if (inputIds !== undefined) {
    assertIdLists('generate', inputIds, vocabSize);
    return withoutPadding('generate', inputIds, attentionMask);
  }
  if (attentionMask !== undefined)
    throw new ConfigError('generate', 'attentionMask goes with inputIds', { fix: 'leave it out' });
  const texts = prompts === undefined ? [textOf('prompt', prompt, 'give prompts for several')] : textsOf(prompts);
  if (!tokenizer) throw new ConfigError('generate', 'the model has no tokenizer', { fix: 'give inputIds' });
  return texts.map((text) => tokenizer.encode(text));
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

/** @throws ConfigError unless inputIds is a list of lists of token ids */
export function assertIdLists(
  op: string,
  inputIds: unknown,
  vocabSize: number,
): asserts inputIds is readonly (readonly number[])[] {
  if (!Array.isArray(inputIds) || inputIds.length === 0)
    throw new ConfigError(op, `inputIds is ${describeValue(inputIds)}`, {
      why: 'it must be a list of lists of token ids, one list for each sequence',
    });
  if (inputIds.every((id) => ['number', 'bigint'].includes(typeof id)))
    throw new ConfigError(op, 'inputIds is a flat list', {
      why: 'it must hold a list of token ids for each sequence',
      fix: 'give inputIds: [ids]',
    });
  for (let i = 0; i < inputIds.length; i++) assertTokenIds(op, `inputIds[${i}]`, inputIds[i], vocabSize);
}

const isMaskRow = (row: unknown, length: number): boolean =>
  Array.isArray(row) && row.length === length && row.every((value) => value === 0 || value === 1);

const lengthsOf = (rows: unknown): unknown =>
  Array.isArray(rows) ? rows.map((row) => (Array.isArray(row) ? row.length : describeValue(row))) : describeValue(rows);

/** The ids where the mask is 1; all of them without a mask. @throws ConfigError when shapes differ. */
export function withoutPadding(
  op: string,
  inputIds: readonly (readonly number[])[],
  attentionMask?: readonly (readonly number[])[],
): (readonly number[])[] {
  if (attentionMask === undefined) return inputIds.map((row) => [...row]);
  const fits =
    Array.isArray(attentionMask) &&
    attentionMask.length === inputIds.length &&
    inputIds.every((row, i) => isMaskRow(attentionMask[i], row.length));
  if (!fits)
    throw new ConfigError(op, 'attentionMask must hold a 0 or 1 for each of the inputIds', {
      inputIds: lengthsOf(inputIds),
      attentionMask: lengthsOf(attentionMask),
    });
  return inputIds.map((row, i) => row.filter((_, j) => attentionMask[i][j] === 1));
}
