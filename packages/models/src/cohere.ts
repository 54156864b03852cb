// Command R (Cohere 2024; transformers models/cohere): decoder with one layer norm per layer, which only scales;
// attention and a gated MLP side by side, neighbouring pairs rotated, logits scaled; tied head.
// Cohere 2 is these modules with windows.
import { defineModel, ROPE_KEYS, schema, type ModelDefinition } from '@q/config';
import { architecture, type Architecture } from './architecture.js';
import type { SelfAttentionOptions } from './nn/attention.js';
import { HeadNorm, headNormsOf } from './nn/head-norm.js';
import { LayerNorm } from './nn/layers.js';
import type { Rope } from './nn/rope.js';
import type { Pass } from './pass/pass.js';
import { CausalHead } from './shared/causal-head.js';
import type { LayerType } from './shared/decoder-config.js';
import { ParallelLayer } from './shared/decoder-layer.js';
import type { Decoder } from './shared/decoder.js';
import {
  layerNormDecoderExpected,
  layerNormDecoderShape,
  readLayerNormDecoder,
  rotaryDecoder,
  ropeOf,
  type LayerNormDecoderConfig,
} from './shared/layer-norm-decoder.js';
import { GatedMlp } from './shared/mlp.js';
import { assertWholeHead } from './shared/rope-spelling.js';
import { SelfAttention, separateQkv } from './shared/self-attention.js';
import { size } from './shared/sizes.js';

/** Positions and mask of a layer. */
export interface CohereLayerKind {
  /** Queries and keys are rotated. */
  readonly rotated: boolean;
  /** Keys a query sees, itself included; 0 for all. */
  readonly window: number;
}

export interface CohereConfig extends LayerNormDecoderConfig {
  /** Bias of the projections of attention. */
  readonly attentionBias: boolean;
  /** Heads of queries and keys are normalised before they are rotated, each with its own scale. */
  readonly headNorms: boolean;
  /** Factor on the logits. */
  readonly logitScale: number;
  /** One for each layer. */
  readonly layerKinds: readonly CohereLayerKind[];
}

const { flag, nullable, orElse, real } = schema;

/** Keys of both versions. */
export const cohereShape = {
  ...layerNormDecoderShape({
    vocab_size: 256000,
    hidden_size: 8192,
    intermediate_size: 22528,
    num_hidden_layers: 40,
    num_attention_heads: 64,
    hidden_act: 'silu',
    max_position_embeddings: 8192,
    tie_word_embeddings: true,
  }),
  num_key_value_heads: nullable(size.heads),
  attention_bias: flag(false),
  logit_scale: orElse(real.gt(0, { error: 'must be above 0' }), 0.0625),
};

/** Facts of both versions. */
export const cohereFacts = {
  alsoReads: ROPE_KEYS,
  expected: [...layerNormDecoderExpected, 'logit_scale'],
  tokenIds: { bos: 5, eos: 255001, pad: 0 },
} as const;

const config = defineModel({
  modelType: 'cohere',
  shape: { ...cohereShape, head_dim: nullable(size.headDim), use_qk_norm: flag(false) },
  ...cohereFacts,
  read: (keys, raw, context): CohereConfig => {
    const rest = { numKvHeads: keys.num_key_value_heads, headDim: keys.head_dim, mlpMatrices: 3 } as const;
    const decoder = readLayerNormDecoder(keys, raw, context, { ...rest, rope: { theta: 500000 } });
    assertWholeHead(context.op, decoder.rope);
    return {
      ...decoder,
      attentionBias: keys.attention_bias,
      headNorms: keys.use_qk_norm,
      logitScale: keys.logit_scale,
      layerKinds: Array.from({ length: decoder.numLayers }, () => ({ rotated: true, window: 0 })),
    };
  },
});

/** Layers that slide are rotated, the others know no positions. */
export const kindsOf = (types: readonly LayerType[], window: number | null): CohereLayerKind[] =>
  types.map((type) =>
    type === 'sliding_attention' ? { rotated: true, window: window! } : { rotated: false, window: 0 },
  );

/** Config of the family and the prefix of its Python class names. */
type Settings = CohereConfig & { readonly family: string };

const normOf = ({ family, hiddenSize, layerNormEps }: Settings) =>
  new LayerNorm(hiddenSize, layerNormEps, { bias: false, className: `${family}LayerNorm` });

function attention(settings: Settings, rope: Rope, { rotated, window }: CohereLayerKind): SelfAttention {
  const { family, numHeads, numKvHeads, headDim, layerNormEps: eps } = settings;
  const parts = separateQkv(settings, { bias: settings.attentionBias });
  const normOfHeads = (heads: number) => new HeadNorm(`${family}LayerNorm`, heads, headDim);
  const norms = settings.headNorms ? { q_norm: normOfHeads(numHeads), k_norm: normOfHeads(numKvHeads) } : undefined;
  const children = { q_proj: parts.q, k_proj: parts.k, v_proj: parts.v, o_proj: parts.out, ...norms };
  const options = (pass: Pass): SelfAttentionOptions => ({
    window,
    rope: rotated ? rope.in(pass) : undefined,
    headNorms: norms && headNormsOf(norms.q_norm, norms.k_norm, pass, eps),
  });
  return new SelfAttention(`${family}Attention`, children, { ...parts, options });
}

function layer(settings: Settings, rope: Rope, kind: CohereLayerKind): ParallelLayer {
  const parts = {
    attention: attention(settings, rope, kind),
    mlp: new GatedMlp(`${settings.family}MLP`, settings),
    attentionNorm: normOf(settings),
  };
  const children = { self_attn: parts.attention, mlp: parts.mlp, input_layernorm: parts.attentionNorm };
  return new ParallelLayer(`${settings.family}DecoderLayer`, children, { ...parts, addsFirst: 'attention' });
}

function model(settings: Settings): Decoder {
  const { family, layerKinds } = settings;
  const rope = ropeOf(family, settings, { interleaved: true });
  const make = (index: number) => layer(settings, rope, layerKinds[index]);
  return rotaryDecoder(family, settings, { rope, layer: make, norm: normOf(settings) });
}

/** An architecture of these modules. @param family begins the names of its Python classes */
export const cohereFamily = <D extends ModelDefinition<string, CohereConfig>>(
  definition: D,
  family: string,
): Architecture<D> =>
  architecture({
    config: definition,
    heads: {
      causalLM: (settings) => {
        const { hiddenSize, logitScale } = settings;
        return new CausalHead(`${family}ForCausalLM`, 'model', model({ ...settings, family }), hiddenSize, {
          logitScale,
        });
      },
      base: (settings) => model({ ...settings, family }),
    },
    noSplit: [`${family}DecoderLayer`],
    keepDense: ['lm_head'],
    outputEmbeddings: 'lm_head',
    basePrefix: 'model',
    ignoredTensors: [/\.rotary_emb\.inv_freq$/],
    tied: { 'lm_head.weight': 'model.embed_tokens.weight' },
  });

export const cohere = cohereFamily(config, 'Cohere');
