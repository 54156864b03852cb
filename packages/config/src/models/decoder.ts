import { z } from 'zod';
import { ConfigError } from '../errors.js';
import type { JsonObject } from '../json.js';
import { ROPE_KEYS, readRope } from '../rope.js';
import { nullable, positive, real } from '../schema.js';
import type { Activation, DecoderConfig, LayerType } from './definition.js';

const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  quick_gelu: 'quick_gelu',
  relu: 'relu',
};

export const activation = z
  .enum(Object.keys(ACTIVATIONS), { error: `must be one of ${Object.keys(ACTIVATIONS).join(', ')}` })
  .transform((name) => ACTIVATIONS[name]);

export const layerTypes = nullable(
  z.array(z.enum(['full_attention', 'sliding_attention']), {
    error: 'must be a list of full_attention and sliding_attention',
  }),
);

/** Keys of the Llama family. */
export const decoderShape = {
  vocab_size: positive,
  hidden_size: positive,
  intermediate_size: positive,
  num_hidden_layers: positive,
  num_attention_heads: positive,
  head_dim: nullable(positive),
  hidden_act: activation,
  max_position_embeddings: positive,
  rms_norm_eps: real.gt(0, { error: 'must be greater than 0' }),
  tie_word_embeddings: z.boolean({ error: 'must be true or false' }).default(false),
};

export const decoderKeys = ROPE_KEYS;

type Keys = z.output<z.ZodObject<typeof decoderShape>>;
type Rest = Pick<
  DecoderConfig,
  'numKvHeads' | 'attentionBias' | 'attentionOutputBias' | 'mlpBias' | 'slidingWindow' | 'layerTypes'
>;

const divides = (op: string, what: string, whole: string, a: number, b: number): void => {
  if (b % a !== 0) throw new ConfigError(op, `${what} is ${a}`, { why: `must divide ${whole} (${b})` });
};

/** The shared part of a Llama-like config, with the rules between sizes checked. @throws ConfigError */
export function readDecoder(keys: Keys, raw: JsonObject, op: string, rest: Rest): DecoderConfig {
  if (keys.head_dim === null)
    divides(op, 'num_attention_heads', 'hidden_size', keys.num_attention_heads, keys.hidden_size);
  divides(op, 'num_key_value_heads', 'num_attention_heads', rest.numKvHeads, keys.num_attention_heads);
  const headDim = keys.head_dim ?? keys.hidden_size / keys.num_attention_heads;
  if (headDim % 2 !== 0)
    throw new ConfigError(op, `head_dim is ${headDim}`, { why: 'must be even for rotary positions' });
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
    rope: readRope(raw, { op, headDim, maxPositionEmbeddings: keys.max_position_embeddings }),
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
