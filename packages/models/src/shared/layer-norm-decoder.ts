// What decoders with rotary positions and layer norms share: their keys with checks, the rules between sizes, and the
// modules around the layers under Llama's names.
import { maxContext, schema, type JsonObject, type ReadContext, type RopeConfig } from '@q/config';
import type { z } from 'zod';
import { Embedding } from '../nn/layers.js';
import { ModuleList, type Module } from '../nn/module.js';
import { Rope } from '../nn/rope.js';
import { activation, type Activation } from './activation.js';
import type { DecoderLayer, Norm } from './decoder-layer.js';
import { Decoder, repeated, type DecoderParts } from './decoder.js';
import { readRopeSpelled, type RopeSpelling } from './rope-spelling.js';
import { assertDivides, assertPlausible, headDimOf, size } from './sizes.js';

export interface LayerNormDecoderConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly maxPositionEmbeddings: number;
  readonly layerNormEps: number;
  readonly hiddenAct: Activation;
  readonly tieWordEmbeddings: boolean;
  readonly rope: RopeConfig;
}

const { flag, orElse } = schema;

/** What a Python class takes for what a file does not give. */
export interface LayerNormDecoderDefaults {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly hidden_act: Activation;
  readonly max_position_embeddings: number;
  readonly tie_word_embeddings: boolean;
}

export const layerNormDecoderShape = (defaults: LayerNormDecoderDefaults) => ({
  vocab_size: orElse(size.vocab, defaults.vocab_size),
  hidden_size: orElse(size.hidden, defaults.hidden_size),
  intermediate_size: orElse(size.intermediate, defaults.intermediate_size),
  num_hidden_layers: orElse(size.layers, defaults.num_hidden_layers),
  num_attention_heads: orElse(size.heads, defaults.num_attention_heads),
  hidden_act: orElse(activation, defaults.hidden_act),
  max_position_embeddings: orElse(size.positions, defaults.max_position_embeddings),
  layer_norm_eps: orElse(size.normEps, 1e-5),
  tie_word_embeddings: flag(defaults.tie_word_embeddings),
});

/** Keys that nearly every file has. */
export const layerNormDecoderExpected = [
  'vocab_size',
  'hidden_size',
  'intermediate_size',
  'num_hidden_layers',
  'num_attention_heads',
  'max_position_embeddings',
] as const;

type Keys = z.output<z.ZodObject<ReturnType<typeof layerNormDecoderShape>>>;

/** What classes do differently. */
interface Rest {
  /** Default: as many as query heads. */
  readonly numKvHeads?: number | null;
  /** Elements of a head that the file gives. Default: heads share the width. */
  readonly headDim?: number | null;
  /** Matrices of an MLP. */
  readonly mlpMatrices: 2 | 3;
  /** Default: as Llama. */
  readonly rope?: RopeSpelling;
}

/** The shared part of a config, with the rules between sizes checked. @throws ConfigError */
export function readLayerNormDecoder(
  keys: Keys,
  raw: JsonObject,
  context: ReadContext,
  { numKvHeads: givenKvHeads, headDim: givenHeadDim, mlpMatrices, rope = {} }: Rest,
): LayerNormDecoderConfig {
  const { op } = context;
  const { hidden_size: hiddenSize, num_hidden_layers: numLayers, num_attention_heads: numHeads } = keys;
  const { intermediate_size: intermediateSize, max_position_embeddings: maxPositionEmbeddings } = keys;
  const heads = ['num_attention_heads', numHeads] as const;
  const headDim = givenHeadDim ?? headDimOf(op, heads, ['hidden_size', hiddenSize]);
  const numKvHeads = givenKvHeads ?? numHeads;
  assertDivides(op, ['num_key_value_heads', numKvHeads], heads);
  const layer = 2 * headDim * (numHeads + numKvHeads) + mlpMatrices * intermediateSize;
  const parameters = hiddenSize * (2 * keys.vocab_size + numLayers * layer);
  assertPlausible(op, parameters, { hidden_size: hiddenSize, num_hidden_layers: numLayers, head_dim: headDim });
  return {
    vocabSize: keys.vocab_size,
    hiddenSize,
    intermediateSize,
    numLayers,
    numHeads,
    numKvHeads,
    headDim,
    maxPositionEmbeddings,
    layerNormEps: keys.layer_norm_eps,
    hiddenAct: keys.hidden_act,
    tieWordEmbeddings: keys.tie_word_embeddings,
    rope: readRopeSpelled(raw, { ...context, headDim, maxPositionEmbeddings }, rope),
  };
}

/** The rotary embedding of a config. @param family begins the names of its Python classes */
export function ropeOf(
  family: string,
  { rope, headDim, maxPositionEmbeddings }: Pick<LayerNormDecoderConfig, 'rope' | 'headDim' | 'maxPositionEmbeddings'>,
  { interleaved = false }: { interleaved?: boolean } = {},
): Rope {
  const rotaryDim = Math.floor(headDim * rope.partialRotaryFactor);
  return new Rope(`${family}RotaryEmbedding`, rope, { rotaryDim, maxPositionEmbeddings, interleaved });
}

/**
 * The decoder around its layers, under Llama's names.
 * @param family begins the names of its Python classes
 * @param layer makes one; `index` counts them
 */
export function rotaryDecoder(
  family: string,
  settings: Omit<LayerNormDecoderConfig, 'layerNormEps'> & Pick<DecoderParts, 'valueDim'>,
  { rope, layer, norm }: { rope: Rope; layer: (index: number) => DecoderLayer & Module; norm: Norm },
): Decoder {
  const { vocabSize, hiddenSize, numLayers, numKvHeads, headDim, valueDim } = settings;
  const embedding = new Embedding(vocabSize, hiddenSize);
  const layers = new ModuleList(repeated(numLayers, layer));
  return new Decoder(
    `${family}Model`,
    { embed_tokens: embedding, layers, norm, rotary_emb: rope },
    {
      vocabSize,
      maxContext: maxContext(settings),
      numKvHeads,
      headDim,
      valueDim,
      embed: (pass) => embedding.forward(pass.inputs.tokenIds!, pass.dtype),
      layers,
      norm,
    },
  );
}
