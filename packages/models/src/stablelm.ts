// StableLM 3B and StableLM 2 (Bellagente et al. 2024, arXiv 2402.17834; transformers models/stablelm): Llama with layer
// norms and a quarter of each head rotated; biases on q, k and v, attention and MLP side by side where the config says.
import { defineModel, ROPE_KEYS, schema } from '@q/config';
import { architecture } from './architecture.js';
import type { SelfAttentionOptions } from './nn/attention.js';
import { HeadNormList, headNormsOf } from './nn/head-norm.js';
import { LayerNorm, Place } from './nn/layers.js';
import type { Rope } from './nn/rope.js';
import type { Pass } from './pass/pass.js';
import { CausalHead } from './shared/causal-head.js';
import { ParallelLayer, SequentialLayer } from './shared/decoder-layer.js';
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
import { rotaryShare } from './shared/rope-spelling.js';
import { SelfAttention, separateQkv } from './shared/self-attention.js';
import { size } from './shared/sizes.js';

export interface StableLmConfig extends LayerNormDecoderConfig {
  /** Bias of q, k and v. */
  readonly qkvBias: boolean;
  /** Heads of queries and keys are normalised before they are rotated, each with its own scale. */
  readonly headNorms: boolean;
  /** Attention and MLP both read the input of the layer. */
  readonly parallelResidual: boolean;
}

const { flag, orElse } = schema;

const config = defineModel({
  modelType: 'stablelm',
  shape: {
    ...layerNormDecoderShape({
      vocab_size: 50304,
      hidden_size: 2560,
      intermediate_size: 6912,
      num_hidden_layers: 32,
      num_attention_heads: 32,
      hidden_act: 'silu',
      max_position_embeddings: 4096,
      tie_word_embeddings: false,
    }),
    num_key_value_heads: orElse(size.heads, 32),
    use_qkv_bias: flag(false),
    qk_layernorm: flag(false),
    use_parallel_residual: flag(false),
    // The share of the rotation as the first files spell it, beside the usual spelling.
    rope_pct: rotaryShare,
  },
  alsoReads: ROPE_KEYS,
  expected: [...layerNormDecoderExpected, 'num_key_value_heads'],
  tokenIds: { bos: 0, eos: 0 },
  read: (keys, raw, context): StableLmConfig => {
    const { rope_pct, num_key_value_heads: numKvHeads } = keys;
    const rope = { share: 0.25, shares: { rope_pct } };
    return {
      ...readLayerNormDecoder(keys, raw, context, { numKvHeads, mlpMatrices: 3, rope }),
      qkvBias: keys.use_qkv_bias,
      headNorms: keys.qk_layernorm,
      parallelResidual: keys.use_parallel_residual,
    };
  },
});

function attention(settings: StableLmConfig, rope: Rope): SelfAttention {
  const { numHeads, numKvHeads, headDim, layerNormEps: eps } = settings;
  const parts = separateQkv(settings, { bias: settings.qkvBias, outputBias: false });
  const normOfHeads = (heads: number) => new HeadNormList('StableLmLayerNormPerHead', heads, headDim, eps);
  const norms = settings.headNorms
    ? { q_layernorm: normOfHeads(numHeads), k_layernorm: normOfHeads(numKvHeads) }
    : undefined;
  const children = { q_proj: parts.q, k_proj: parts.k, v_proj: parts.v, o_proj: parts.out, ...norms };
  const options = (pass: Pass): SelfAttentionOptions => ({
    rope: rope.in(pass),
    headNorms: norms && headNormsOf(norms.q_layernorm, norms.k_layernorm, pass, eps),
  });
  return new SelfAttention('StableLmAttention', children, { ...parts, options });
}

function layer(settings: StableLmConfig, rope: Rope): ParallelLayer | SequentialLayer {
  const norm = () => new LayerNorm(settings.hiddenSize, settings.layerNormEps);
  const parts = {
    attention: attention(settings, rope),
    mlp: new GatedMlp('StableLmMLP', settings),
    attentionNorm: norm(),
  };
  const before = { self_attn: parts.attention, mlp: parts.mlp, input_layernorm: parts.attentionNorm };
  const dropout = new Place('Dropout');
  const name = 'StableLmDecoderLayer';
  if (settings.parallelResidual)
    return new ParallelLayer(name, { ...before, dropout }, { ...parts, addsFirst: 'attention' });
  const mlpNorm = norm();
  return new SequentialLayer(name, { ...before, post_attention_layernorm: mlpNorm, dropout }, { ...parts, mlpNorm });
}

function model(settings: StableLmConfig): Decoder {
  const rope = ropeOf('StableLm', settings);
  const norm = new LayerNorm(settings.hiddenSize, settings.layerNormEps);
  return rotaryDecoder('StableLm', settings, { rope, layer: () => layer(settings, rope), norm });
}

export const stablelm = architecture({
  config,
  heads: {
    causalLM: (settings) => new CausalHead('StableLmForCausalLM', 'model', model(settings), settings.hiddenSize),
    base: model,
  },
  noSplit: ['StableLmDecoderLayer'],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'model',
  ignoredTensors: [/\.rotary_emb\.inv_freq$/],
  tied: { 'lm_head.weight': 'model.embed_tokens.weight' },
});
