// Phi 1, 1.5 and 2 (Gunasekar et al. 2023, arXiv 2306.11644; transformers models/phi): decoder with one layer norm per
// layer, attention and MLP side by side, biases everywhere, a part of each head rotated; a head with a bias.
import { ConfigError, defineModel, maxContext, ROPE_KEYS, schema } from '@q/config';
import { concatColumns, type Tensor } from '@q/tensor';
import { architecture } from './architecture.js';
import { activationPlace, Embedding, LayerNorm, Place } from './nn/layers.js';
import { Linear } from './nn/linear.js';
import { ModuleList } from './nn/module.js';
import type { Rope } from './nn/rope.js';
import type { Pass } from './pass/pass.js';
import { CausalHead } from './shared/causal-head.js';
import { ParallelLayer } from './shared/decoder-layer.js';
import { Decoder, repeated } from './shared/decoder.js';
import {
  layerNormDecoderExpected,
  layerNormDecoderShape,
  readLayerNormDecoder,
  ropeOf,
  type LayerNormDecoderConfig,
} from './shared/layer-norm-decoder.js';
import { Mlp } from './shared/mlp.js';
import { SelfAttention, separateQkv, type SeparateQkv } from './shared/self-attention.js';
import { size } from './shared/sizes.js';

const { flag, nullable } = schema;

export interface PhiConfig extends LayerNormDecoderConfig {
  /** Layer norms of query and key heads, one for all heads of each. */
  readonly headNorms: boolean;
}

const config = defineModel({
  modelType: 'phi',
  shape: {
    ...layerNormDecoderShape({
      vocab_size: 51200,
      hidden_size: 2048,
      intermediate_size: 8192,
      num_hidden_layers: 24,
      num_attention_heads: 32,
      hidden_act: 'gelu_tanh',
      max_position_embeddings: 2048,
      tie_word_embeddings: false,
    }),
    num_key_value_heads: nullable(size.heads),
    head_dim: nullable(size.headDim),
    qk_layernorm: flag(false),
  },
  alsoReads: ROPE_KEYS,
  expected: layerNormDecoderExpected,
  tokenIds: { bos: 1, eos: 2 },
  read: (keys, raw, context): PhiConfig => {
    const decoder = readLayerNormDecoder(keys, raw, context, {
      numKvHeads: keys.num_key_value_heads,
      headDim: keys.head_dim,
      mlpMatrices: 2,
      rope: { share: 0.5 },
    });
    const { hiddenSize, numHeads, headDim } = decoder;
    if (keys.qk_layernorm && headDim * numHeads !== hiddenSize)
      throw new ConfigError(context.op, `head_dim is ${headDim} and qk_layernorm is true`, {
        why: `the norms are as wide as hidden_size / num_attention_heads (${hiddenSize / numHeads})`,
      });
    return { ...decoder, headNorms: keys.qk_layernorm };
  },
});

function attention(settings: PhiConfig, rope: Rope): SelfAttention {
  const parts = separateQkv(settings, { bias: true });
  const children = { q_proj: parts.q, k_proj: parts.k, v_proj: parts.v, dense: parts.out };
  const options = (pass: Pass) => ({ rope: rope.in(pass) });
  if (!settings.headNorms) return new SelfAttention('PhiAttention', children, { ...parts, options });
  const norm = () => new LayerNorm(settings.headDim, settings.layerNormEps);
  const norms = { q_layernorm: norm(), k_layernorm: norm() };
  const qkv = normedQkv(parts, norms.q_layernorm, norms.k_layernorm);
  return new SelfAttention('PhiAttention', { ...children, ...norms }, { ...parts, options, qkv });
}

/**
 * Packed rows whose query and key heads are normalised, with a shift that `headNorm` has not: each a step of its own.
 */
function normedQkv({ q, k, v, layout }: SeparateQkv, qNorm: LayerNorm, kNorm: LayerNorm): (x: Tensor) => Tensor {
  const normed = (x: Tensor, norm: LayerNorm) =>
    norm.forward(x.reshape([x.count / layout.headDim, layout.headDim])).reshape(x.shape);
  return (x) => {
    const queries = normed(q.forward(x), qNorm); // [T, H D]
    const keys = normed(k.forward(x), kNorm); // [T, G D]
    const parts = [
      { x: queries, offset: layout.qOffset },
      { x: keys, offset: layout.kOffset },
      { x: v.forward(x), offset: layout.vOffset },
    ];
    return concatColumns(parts, layout.rowStride);
  };
}

function mlp({ hiddenSize, intermediateSize, hiddenAct }: LayerNormDecoderConfig): Mlp {
  const up = new Linear(hiddenSize, intermediateSize, { bias: true });
  const down = new Linear(intermediateSize, hiddenSize, { bias: true });
  const children = { activation_fn: activationPlace(hiddenAct), fc1: up, fc2: down };
  return new Mlp('PhiMLP', children, { up, down, activation: hiddenAct });
}

function layer(settings: PhiConfig, rope: Rope): ParallelLayer {
  const parts = {
    attention: attention(settings, rope),
    mlp: mlp(settings),
    attentionNorm: new LayerNorm(settings.hiddenSize, settings.layerNormEps),
  };
  const children = {
    self_attn: parts.attention,
    mlp: parts.mlp,
    input_layernorm: parts.attentionNorm,
    resid_dropout: new Place('Dropout'),
  };
  return new ParallelLayer('PhiDecoderLayer', children, { ...parts, addsFirst: 'sum' });
}

function model(settings: PhiConfig): Decoder {
  const { vocabSize, hiddenSize, numLayers, numKvHeads, headDim } = settings;
  const rope = ropeOf('Phi', settings);
  const embedding = new Embedding(vocabSize, hiddenSize);
  const layers = new ModuleList(repeated(numLayers, () => layer(settings, rope)));
  const norm = new LayerNorm(hiddenSize, settings.layerNormEps);
  const children = {
    embed_tokens: embedding,
    layers,
    rotary_emb: rope,
    embed_dropout: new Place('Dropout'),
    final_layernorm: norm,
  };
  return new Decoder('PhiModel', children, {
    vocabSize,
    maxContext: maxContext(settings),
    numKvHeads,
    headDim,
    embed: (pass) => embedding.forward(pass.inputs.tokenIds!, pass.dtype),
    layers,
    norm,
  });
}

export const phi = architecture({
  config,
  heads: {
    causalLM: (settings) =>
      new CausalHead('PhiForCausalLM', 'model', model(settings), settings.hiddenSize, { bias: true }),
    base: model,
  },
  noSplit: ['PhiDecoderLayer'],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'model',
  ignoredTensors: [/\.rotary_emb\.inv_freq$/],
  tied: { 'lm_head.weight': 'model.embed_tokens.weight' },
});
