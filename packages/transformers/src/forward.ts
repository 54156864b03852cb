// forward(): one pass over a padded batch, for whoever wants hidden states or logits as they are.
import { assertKnownKeys, ConfigError, describeValue } from '@q/config';
import { assertFits, passOver, PastState, unpack } from '@q/generate';
import type { CausalLM, InputName, Model, Slice } from '@q/models';
import type { Backend, FloatDType, Tensor } from '@q/tensor';
import { assertIdLists, assertMatrix, withoutPadding } from './inputs.js';

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
  /** Whether the result has `hiddenStates`. Default false. */
  readonly outputHiddenStates?: boolean;
  /** Keys and values of earlier calls, from `createPast`; this call adds to them. For causal models. */
  readonly past?: PastState;
}

const inputNames = [
  'inputIds',
  'attentionMask',
  'tokenTypeIds',
  'positionIds',
  'outputHiddenStates',
  'past',
] as const satisfies readonly (keyof ForwardInput)[];

/** What a pass gives; dispose it to free its tensors. */
export class ModelOutput implements Disposable {
  /** Behind the last norm: [batch, length, hidden], zero where the mask is 0. */
  readonly lastHiddenState: Tensor;
  /** [batch, length, vocab], zero where the mask is 0; of models with a language modelling head. */
  readonly logits?: Tensor;
  /** Of the first token, through the pooling layer: [batch, hidden]; of models that have one. */
  readonly poolerOutput?: Tensor;
  /** Before the first layer and behind each one, the last behind the last norm: [batch, length, hidden] each. */
  readonly hiddenStates?: readonly Tensor[];

  constructor(tensors: Omit<ModelOutput, 'dispose' | typeof Symbol.dispose>) {
    this.lastHiddenState = tensors.lastHiddenState;
    if (tensors.logits) this.logits = tensors.logits;
    if (tensors.poolerOutput) this.poolerOutput = tensors.poolerOutput;
    if (tensors.hiddenStates) this.hiddenStates = tensors.hiddenStates;
  }

  dispose(): void {
    const { lastHiddenState, logits, poolerOutput, hiddenStates = [] } = this;
    for (const tensor of [lastHiddenState, logits, poolerOutput, ...hiddenStates]) tensor?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** What runs a forward pass. */
interface Runner {
  readonly model: Model;
  readonly backend: Backend;
  readonly engine: { readonly dtype: FloatDType };
}

/** The input, checked: packed lists, and where their tokens are in the batch. */
interface Packed {
  readonly lists: readonly (readonly number[])[];
  readonly positions: readonly (readonly number[])[] | undefined;
  readonly tokenTypes: readonly (readonly number[])[] | undefined;
  readonly places: readonly number[];
  readonly batch: number;
  readonly length: number;
}

const isLanguageModel = (model: Model): model is CausalLM => 'logits' in model;

/** See `PretrainedModel.forward`. */
export function forwardBatch(runner: Runner, input: ForwardInput): ModelOutput {
  const { model, backend } = runner;
  const packed = checkedInput(model, input);
  const hiddenStates: Tensor[] | undefined = input.outputHiddenStates ? [] : undefined;
  const padded = (tensor: Tensor) => unpack(backend, tensor, packed.places, packed.batch, packed.length);
  try {
    const tensors = backend.scope(() => {
      const { hidden, pooled } = input.past
        ? { hidden: input.past.forward(packed.lists, { positions: packed.positions, hiddenStates }), pooled: undefined }
        : hiddenOf(runner, packed, hiddenStates);
      return {
        lastHiddenState: padded(hidden),
        logits: isLanguageModel(model) ? padded(model.logits(hidden)) : undefined,
        poolerOutput: pooled,
        hiddenStates: hiddenStates && [...hiddenStates.slice(0, -1), hidden].map(padded),
      };
    });
    return new ModelOutput(tensors);
  } finally {
    for (const tensor of hiddenStates ?? []) tensor.dispose();
  }
}

/** Hidden states of a pass that leaves nothing behind. */
function hiddenOf(
  { model, backend, engine: { dtype } }: Runner,
  { lists, positions, tokenTypes }: Packed,
  hiddenStates: Tensor[] | undefined,
): { hidden: Tensor; pooled: Tensor | undefined } {
  const present = [...lists.keys()].filter((i) => lists[i].length > 0);
  const slices: Slice[] = present.map((i) => ({ ids: lists[i], start: 0, positions: positions?.[i] }));
  const inputs = tokenTypes && { tokenTypeIds: present.map((i) => tokenTypes[i]) };
  return passOver(
    { backend, dtype },
    slices,
    (pass) => {
      const hidden = model.forward(pass);
      return { hidden, pooled: model.pooled?.(hidden, pass) };
    },
    { inputs, hiddenStates },
  );
}

function checkedInput(model: Model, input: ForwardInput): Packed {
  assertKnownKeys('forward', input, inputNames);
  const { inputIds, attentionMask, tokenTypeIds, positionIds, outputHiddenStates, past } = input;
  const length = rectangleLength(inputIds, model.vocabSize);
  const lists = withoutPadding('forward', inputIds, attentionMask);
  if (lists.every((list) => list.length === 0))
    throw new ConfigError('forward', 'attentionMask leaves no token', { fix: 'give a 1 for each token' });
  if (model.pooled && lists.some((list) => list.length === 0))
    throw new ConfigError('forward', 'attentionMask leaves no token of a row', { fix: 'leave the row out' });
  if (past !== undefined && !(past instanceof PastState))
    throw new ConfigError('forward', `past is ${describeValue(past)}`, { fix: 'give what createPast() returns' });
  if (past && !past.isOf(model))
    throw new ConfigError('forward', 'past is of another model', {
      fix: "give what this model's createPast() returns",
    });
  if (past === undefined) lists.forEach((list, i) => assertFits('forward', `inputIds[${i}]`, list.length, model));
  if (outputHiddenStates !== undefined && typeof outputHiddenStates !== 'boolean')
    throw new ConfigError('forward', `outputHiddenStates is ${describeValue(outputHiddenStates)}`, {
      fix: 'give true or false',
    });
  assertReads(model, 'tokenTypeIds', tokenTypeIds);
  assertReads(model, 'positionIds', positionIds);
  const packed = (name: string, rows: typeof inputIds | undefined, limit: number) => {
    if (rows === undefined) return undefined;
    assertMatrix('forward', name, rows, inputIds, limit);
    return withoutPadding('forward', rows, attentionMask);
  };
  return {
    lists,
    positions: packed('positionIds', positionIds, model.maxContext),
    tokenTypes: packed('tokenTypeIds', tokenTypeIds, model.tokenTypes ?? 1),
    places: inputIds.flatMap((row, i) =>
      row.flatMap((_, j) => (attentionMask && attentionMask[i][j] === 0 ? [] : [i * length + j])),
    ),
    batch: inputIds.length,
    length,
  };
}

/** @throws ConfigError for an input that the model has no use for */
function assertReads(model: Model, name: InputName, value: unknown): void {
  if (value === undefined || model.inputs.includes(name)) return;
  throw new ConfigError('forward', `${name} is given`, {
    why: `${model.className} does not read it`,
    fix: 'leave it out',
  });
}

/** Length of the rows. @throws ConfigError unless inputIds is a rectangle of token ids with something in it */
function rectangleLength(inputIds: readonly (readonly number[])[], vocabSize: number): number {
  assertIdLists('forward', inputIds, vocabSize);
  const { length } = inputIds[0];
  if (length > 0 && inputIds.every((row) => row.length === length)) return length;
  throw new ConfigError('forward', 'inputIds must be a rectangle [batch, length]', {
    got: inputIds.map((row) => row.length),
    fix: 'pad them, with an attentionMask',
  });
}
