// What forward() reads, checked in the words of the caller.
import { ConfigError, describeValue } from '@q/config';
import { PastState } from '@q/generate';
import type { CausalLM, InputName, Model } from '@q/models';
import type { Backend, FloatDType } from '@q/tensor';
import { assertIdLists } from './inputs.js';

/** A batch of one length, padded where the mask is 0. */
export interface ForwardInput {
  /** [batch, length] */
  readonly inputIds: readonly (readonly number[])[];
  /** [batch, length], 1 for tokens and 0 for padding. Default: no padding. */
  readonly attentionMask?: readonly (readonly number[])[];
  /** [batch, length], which text of a pair a token is of. For models that read it. Default 0. */
  readonly tokenTypeIds?: readonly (readonly number[])[];
  /** [batch, length]. Default: the tokens of a row counted from 0, or on from those of `past`. */
  readonly positionIds?: readonly (readonly number[])[];
  /** [batch, decoder length]: what the decoder has written. For encoder-decoders, which need them. */
  readonly decoderInputIds?: readonly (readonly number[])[];
  /** [batch, decoder length], 1 for tokens and 0 for padding. Default: no padding. */
  readonly decoderAttentionMask?: readonly (readonly number[])[];
  /** Whether the result has `hiddenStates`, or those of decoder and encoder. Default false. */
  readonly outputHiddenStates?: boolean;
  /** Keys and values of earlier calls, from `createPast`; this call adds to them. For language models. */
  readonly past?: PastState;
}

export const inputNames = [
  'inputIds',
  'attentionMask',
  'tokenTypeIds',
  'positionIds',
  'decoderInputIds',
  'decoderAttentionMask',
  'outputHiddenStates',
  'past',
] as const satisfies readonly (keyof ForwardInput)[];

/** What runs a forward pass. */
export interface Runner {
  readonly model: Model;
  readonly backend: Backend;
  readonly engine: { readonly dtype: FloatDType };
}

export const isLanguageModel = (model: Model): model is CausalLM => 'logits' in model;

/** What is no ids. @throws ConfigError */
export function checkSwitches(model: Model, { past, outputHiddenStates }: ForwardInput): void {
  if (past !== undefined && !(past instanceof PastState))
    throw new ConfigError('forward', `past is ${describeValue(past)}`, { fix: 'give what createPast() returns' });
  if (past && !past.isOf(model))
    throw new ConfigError('forward', 'past is of another model', {
      fix: "give what this model's createPast() returns",
    });
  if (outputHiddenStates !== undefined && typeof outputHiddenStates !== 'boolean')
    throw new ConfigError('forward', `outputHiddenStates is ${describeValue(outputHiddenStates)}`, {
      fix: 'give true or false',
    });
}

/** @throws ConfigError for an input that the model has no use for */
export function assertReads(model: Model, name: InputName, value: unknown): void {
  if (value === undefined || model.inputs.includes(name)) return;
  throw new ConfigError('forward', `${name} is given`, {
    why: `${model.className} does not read it`,
    fix: 'leave it out',
  });
}

/**
 * Length of the rows.
 * @param name of the ids, as the caller wrote it
 * @throws ConfigError unless inputIds is a rectangle of token ids with something in it
 */
export function rectangleLength(
  inputIds: readonly (readonly number[])[],
  vocabSize: number,
  name = 'inputIds',
): number {
  assertIdLists('forward', inputIds, vocabSize, name);
  const { length } = inputIds[0];
  if (length > 0 && inputIds.every((row) => row.length === length)) return length;
  throw new ConfigError('forward', `${name} must be a rectangle [batch, length]`, {
    got: inputIds.map((row) => row.length),
    fix: 'pad them, with an attentionMask',
  });
}
