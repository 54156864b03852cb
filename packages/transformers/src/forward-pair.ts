// forward() of encoder-decoders: the encoder over one padded batch, the decoder over another one.
import { ConfigError } from '@q/config';
import { passOverPairs, unpack, type PairStates, type PastState } from '@q/generate';
import type { EncoderDecoder, Slice } from '@q/models';
import type { Tensor } from '@q/tensor';
import {
  assertReads,
  checkSwitches,
  isLanguageModel,
  rectangleLength,
  type ForwardInput,
  type Runner,
} from './forward-input.js';
import { withoutPadding, type IdNames } from './inputs.js';
import { ModelOutput } from './model-output.js';

/** One padded batch, packed. */
interface Packed {
  readonly lists: readonly (readonly number[])[];
  readonly pad: (packed: Tensor) => Tensor;
  /** Hidden states before the first layer and behind each one, with the last norm's behind. */
  readonly padAll: (states: readonly Tensor[], last: Tensor) => Tensor[];
}

interface Outputs {
  /** Undefined where the encoder ran in an earlier call. */
  readonly encoded: Tensor | undefined;
  readonly hidden: Tensor;
}

type PairRunner = Runner & { readonly model: EncoderDecoder };

const encoderIds: IdNames = { ids: 'inputIds', mask: 'attentionMask' };
const decoderIds: IdNames = { ids: 'decoderInputIds', mask: 'decoderAttentionMask' };

/** See `PretrainedModel.forward`. */
export function forwardPair(runner: PairRunner, input: ForwardInput): ModelOutput {
  const { model, backend, engine } = runner;
  const { source, target } = checkedPair(runner, input);
  const wanted = input.outputHiddenStates === true;
  const states: { encoder?: Tensor[]; decoder?: Tensor[] } = wanted ? { encoder: [], decoder: [] } : {};
  try {
    const tensors = backend.scope(() => {
      const { encoded, hidden } = input.past
        ? withPast(input.past, source, target, states)
        : passOverPairs({ backend, dtype: engine.dtype }, model, slicesOf(source!), slicesOf(target), states);
      return {
        lastHiddenState: target.pad(hidden),
        logits: isLanguageModel(model) ? target.pad(model.logits(hidden)) : undefined,
        decoderHiddenStates: states.decoder && target.padAll(states.decoder, hidden),
        encoderLastHiddenState: encoded && source!.pad(encoded),
        encoderHiddenStates: states.encoder && encoded && source!.padAll(states.encoder, encoded),
      };
    });
    return new ModelOutput(tensors);
  } finally {
    for (const tensor of [...(states.encoder ?? []), ...(states.decoder ?? [])]) tensor.dispose();
  }
}

function withPast(past: PastState, source: Packed | undefined, target: Packed, states: PairStates): Outputs {
  const encoded = source && past.encode(source.lists, { hiddenStates: states.encoder });
  return { encoded, hidden: past.forward(target.lists, { hiddenStates: states.decoder }) };
}

const slicesOf = ({ lists }: Packed): Slice[] => lists.map((ids) => ({ ids, start: 0 }));

function checkedPair(runner: PairRunner, input: ForwardInput): { source: Packed | undefined; target: Packed } {
  const { inputIds, attentionMask, decoderInputIds, decoderAttentionMask, past } = input;
  checkSwitches(runner.model, input);
  assertReads(runner.model, 'tokenTypeIds', input.tokenTypeIds);
  assertReads(runner.model, 'positionIds', input.positionIds);
  if (decoderInputIds === undefined)
    throw new ConfigError('forward', 'decoderInputIds are missing', {
      why: `the decoder of ${runner.model.className} reads them`,
      fix: 'give a list for each row, with at least the decoder start token',
    });
  const target = packedOf(runner, decoderInputIds, decoderAttentionMask, decoderIds, {
    mayBeEmpty: past !== undefined,
  });
  if (inputIds === undefined && past?.isEncoded) {
    if (attentionMask === undefined) return { source: undefined, target };
    throw new ConfigError('forward', 'attentionMask goes with inputIds', { fix: 'leave it out' });
  }
  const source = packedOf(runner, inputIds, attentionMask, encoderIds);
  if (source.lists.length !== target.lists.length)
    throw new ConfigError('forward', 'inputIds and decoderInputIds must have as many rows', {
      inputIds: source.lists.length,
      decoderInputIds: target.lists.length,
    });
  return { source, target };
}

function packedOf(
  { model, backend }: PairRunner,
  ids: readonly (readonly number[])[],
  mask: readonly (readonly number[])[] | undefined,
  names: IdNames,
  { mayBeEmpty = false } = {},
): Packed {
  const length = rectangleLength(ids, model.vocabSize, names.ids);
  const lists = withoutPadding('forward', ids, mask, names);
  const empty = lists.findIndex((list) => list.length === 0);
  if (mayBeEmpty ? lists.every((list) => list.length === 0) : empty >= 0)
    throw new ConfigError('forward', `${names.mask} leaves no token of row ${Math.max(empty, 0)}`, {
      fix: 'give a 1 for each token',
    });
  const gap = mask?.findIndex((row) => /10+1/.test(row.join('')));
  if (gap !== undefined && gap >= 0)
    throw new ConfigError('forward', `${names.mask}[${gap}] has a gap`, {
      why: 'tokens are seen by their distance, and padding between them would count',
      fix: 'pad on the left or on the right',
    });
  const places = ids.flatMap((row, i) => row.flatMap((_, j) => (mask && mask[i][j] === 0 ? [] : [i * length + j])));
  const pad = (tensor: Tensor): Tensor => unpack(backend, tensor, places, ids.length, length);
  return { lists, pad, padAll: (states, last) => [...states.slice(0, -1), last].map(pad) };
}
