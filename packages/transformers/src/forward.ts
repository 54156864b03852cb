// forward(): one pass over a padded batch, for whoever wants hidden states or logits as they are.
import { assertKnownKeys, ConfigError } from '@q/config';
import { assertFits, passOver, unpack } from '@q/generate';
import { isEncoderDecoder, type Model, type Slice } from '@q/models';
import type { Tensor } from '@q/tensor';
import {
  assertReads,
  checkSwitches,
  inputNames,
  isLanguageModel,
  rectangleLength,
  type ForwardInput,
  type Runner,
} from './forward-input.js';
import { forwardPair } from './forward-pair.js';
import { assertMatrix, withoutPadding } from './inputs.js';
import { ModelOutput } from './model-output.js';

/** The input, checked: packed lists, and where their tokens are in the batch. */
interface Packed {
  readonly lists: readonly (readonly number[])[];
  readonly positions: readonly (readonly number[])[] | undefined;
  readonly tokenTypes: readonly (readonly number[])[] | undefined;
  readonly places: readonly number[];
  readonly batch: number;
  readonly length: number;
}

/** See `PretrainedModel.forward`. */
export function forwardBatch(runner: Runner, input: ForwardInput): ModelOutput {
  const { model, backend } = runner;
  assertKnownKeys('forward', input, inputNames);
  if (isEncoderDecoder(model)) return forwardPair({ ...runner, model }, input);
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
      return { hidden, pooled: model.pooler?.forward(hidden, pass) };
    },
    { inputs, hiddenStates },
  );
}

function checkedInput(model: Model, input: ForwardInput): Packed {
  const { inputIds, attentionMask, tokenTypeIds, positionIds, past } = input;
  refuseDecoderInputs(model, input);
  const length = rectangleLength(inputIds, model.vocabSize);
  const lists = withoutPadding('forward', inputIds, attentionMask);
  if (lists.every((list) => list.length === 0))
    throw new ConfigError('forward', 'attentionMask leaves no token', { fix: 'give a 1 for each token' });
  if (model.pooler && lists.some((list) => list.length === 0))
    throw new ConfigError('forward', 'attentionMask leaves no token of a row', { fix: 'leave the row out' });
  checkSwitches(model, input);
  if (past === undefined) lists.forEach((list, i) => assertFits('forward', `inputIds[${i}]`, list.length, model));
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

function refuseDecoderInputs(model: Model, input: ForwardInput): void {
  for (const name of ['decoderInputIds', 'decoderAttentionMask'] as const)
    if (input[name] !== undefined)
      throw new ConfigError('forward', `${name} is given`, {
        why: `${model.className} has one input of ids`,
        fix: 'leave it out',
      });
}
