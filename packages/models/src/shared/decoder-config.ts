// What the Llama family's config files share: their keys with checks and defaults, and the rules between sizes.
import {
  ConfigError,
  MAX_LAYERS,
  readRope,
  ROPE_KEYS,
  schema,
  type JsonObject,
  type ReadContext,
  type RopeConfig,
} from '@q/config';
import { z } from 'zod';
import { activation, activationClass, type Activation } from './activation.js';
import { readRopeSpelled, type RopeSpelling } from './rope-spelling.js';
import { assertDivides, assertPlausible, headDimOf, size } from './sizes.js';

const { flag, listOf, nullable, orElse, real } = schema;

export type LayerType = 'full_attention' | 'sliding_attention';

/** What the decoder-only architectures share. Sizes are in elements. */
export interface DecoderConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly maxPositionEmbeddings: number;
  readonly rmsNormEps: number;
  readonly hiddenAct: Activation;
  /** Its Python class: several names compute the same. */
  readonly activationClass: string;
  /** Bias of the query, key and value projections. */
  readonly attentionBias: boolean;
  /** Bias of the attention output projection. */
  readonly attentionOutputBias: boolean;
  readonly mlpBias: boolean;
  /** The head uses the embedding matrix. */
  readonly tieWordEmbeddings: boolean;
  readonly rope: RopeConfig;
  /** Keys a query of a sliding layer sees, itself included; null when no layer slides. */
  readonly slidingWindow: number | null;
  /** One entry per layer. */
  readonly layerTypes: readonly LayerType[];
}

export const layerTypes = nullable(
  listOf(
    z.enum(['full_attention', 'sliding_attention']),
    'must be a list of full_attention and sliding_attention',
    MAX_LAYERS,
  ),
);

/** What a Python class takes for sizes that a file does not give. */
export interface DecoderDefaults {
  readonly vocab_size: number;
  readonly intermediate_size: number;
  readonly max_position_embeddings: number;
  /** Default 4096. */
  readonly hidden_size?: number;
  /** Default 32. */
  readonly num_hidden_layers?: number;
  /** Default 32. */
  readonly num_attention_heads?: number;
  /** Default null: heads share the width. */
  readonly head_dim?: number;
  /** Default 1e-6. */
  readonly rms_norm_eps?: number;
  /** Default false. */
  readonly tie_word_embeddings?: boolean;
}

export const heads = size.heads;
export const window = size.positions;

/** Keys of the Llama family with the defaults of a class; where the classes agree they stand here. */
export const decoderShape = (defaults: DecoderDefaults) => ({
  vocab_size: orElse(size.vocab, defaults.vocab_size),
  hidden_size: orElse(size.hidden, defaults.hidden_size ?? 4096),
  intermediate_size: orElse(size.intermediate, defaults.intermediate_size),
  num_hidden_layers: orElse(size.layers, defaults.num_hidden_layers ?? 32),
  num_attention_heads: orElse(heads, defaults.num_attention_heads ?? 32),
  head_dim: z.nullable(size.headDim).default(defaults.head_dim ?? null),
  hidden_act: orElse(activation, 'silu'),
  max_position_embeddings: orElse(size.positions, defaults.max_position_embeddings),
  rms_norm_eps: orElse(size.normEps, defaults.rms_norm_eps ?? 1e-6),
  tie_word_embeddings: flag(defaults.tie_word_embeddings ?? false),
});

export const decoderKeys = ROPE_KEYS;

/** Keys that nearly every file has: a default in their place is worth a line. */
export const expectedKeys = [
  'vocab_size',
  'hidden_size',
  'intermediate_size',
  'num_hidden_layers',
  'num_attention_heads',
  'hidden_act',
  'max_position_embeddings',
  'rms_norm_eps',
] as const;

type Keys = z.output<z.ZodObject<ReturnType<typeof decoderShape>>>;
type Rest = Pick<
  DecoderConfig,
  'numKvHeads' | 'attentionBias' | 'attentionOutputBias' | 'mlpBias' | 'slidingWindow' | 'layerTypes'
> & { readonly activationClass?: string };

/** Parameters that the sizes lead to, about. */
function parametersOf(keys: Keys, headDim: number, numKvHeads: number): number {
  const { vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads } = keys;
  const attention = 2 * hidden_size * headDim * (num_attention_heads + numKvHeads);
  const layer = attention + 3 * hidden_size * intermediate_size;
  return 2 * vocab_size * hidden_size + num_hidden_layers * layer;
}

/**
 * The shared part of a Llama-like config, with the rules between sizes checked.
 * @param spelling where the class reads rotary settings otherwise
 * @throws ConfigError
 */
export function readDecoder(
  keys: Keys,
  raw: JsonObject,
  context: ReadContext,
  rest: Rest,
  spelling?: RopeSpelling,
): DecoderConfig {
  const { op } = context;
  const { hidden_size, num_attention_heads, num_hidden_layers } = keys;
  const heads = ['num_attention_heads', num_attention_heads] as const;
  const headDim = keys.head_dim ?? headDimOf(op, heads, ['hidden_size', hidden_size]);
  assertDivides(op, ['num_key_value_heads', rest.numKvHeads], heads);
  if (headDim % 2 !== 0)
    throw new ConfigError(op, `head_dim is ${headDim}`, { why: 'must be even for rotary positions' });
  assertPlausible(op, parametersOf(keys, headDim, rest.numKvHeads), {
    hidden_size,
    num_hidden_layers,
    head_dim: headDim,
  });
  const ropeContext = { ...context, headDim, maxPositionEmbeddings: keys.max_position_embeddings };
  return {
    vocabSize: keys.vocab_size,
    hiddenSize: keys.hidden_size,
    intermediateSize: keys.intermediate_size,
    numLayers: keys.num_hidden_layers,
    numHeads: keys.num_attention_heads,
    headDim,
    maxPositionEmbeddings: keys.max_position_embeddings,
    rmsNormEps: keys.rms_norm_eps,
    hiddenAct: keys.hidden_act,
    tieWordEmbeddings: keys.tie_word_embeddings,
    activationClass: activationClass(String(raw.hidden_act ?? 'silu')),
    rope: spelling ? readRopeSpelled(raw, ropeContext, spelling) : readRope(raw, ropeContext),
    ...rest,
  };
}

/**
 * The kind of each layer and the window, checked against each other. `fallback` gives the kind of a layer when the file
 * has no list.
 */
export function readWindow(
  op: string,
  numLayers: number,
  listed: readonly LayerType[] | null,
  window: number | null,
  fallback: (layer: number) => LayerType,
): Pick<DecoderConfig, 'slidingWindow' | 'layerTypes'> {
  if (listed !== null && listed.length !== numLayers)
    throw new ConfigError(op, `layer_types has ${listed.length} entries`, {
      why: `must have one per layer (${numLayers})`,
    });
  const types =
    listed ?? Array.from({ length: numLayers }, (_, layer) => (window === null ? 'full_attention' : fallback(layer)));
  const slides = types.includes('sliding_attention');
  if (slides && window === null)
    throw new ConfigError(op, 'layer_types has sliding_attention but there is no sliding_window', {
      fix: 'set sliding_window',
    });
  return { slidingWindow: slides ? window : null, layerTypes: types };
}

/** Layers without a window. */
export const noWindow = (numLayers: number): Pick<DecoderConfig, 'slidingWindow' | 'layerTypes'> => ({
  slidingWindow: null,
  layerTypes: Array.from({ length: numLayers }, () => 'full_attention' as const),
});

/** A number above 0. */
export const positive = real.gt(0, { error: 'must be above 0' });
