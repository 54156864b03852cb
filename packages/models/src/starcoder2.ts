// StarCoder 2 (Lozhkov et al. 2024, arXiv 2402.19173; transformers models/starcoder2): decoder with layer norms and
// biases, rotary positions, grouped queries, an ungated MLP, and a window in every layer.
import { defineModel, ROPE_KEYS, schema } from '@q/config';
import { architecture } from './architecture.js';
import { activationPlace, LayerNorm } from './nn/layers.js';
import { Linear } from './nn/linear.js';
import type { Rope } from './nn/rope.js';
import type { Pass } from './pass/pass.js';
import { activationClass } from './shared/activation.js';
import { CausalHead } from './shared/causal-head.js';
import { window } from './shared/decoder-config.js';
import { SequentialLayer } from './shared/decoder-layer.js';
import type { Decoder } from './shared/decoder.js';
import {
  layerNormDecoderExpected,
  layerNormDecoderShape,
  readLayerNormDecoder,
  rotaryDecoder,
  ropeOf,
  type LayerNormDecoderConfig,
} from './shared/layer-norm-decoder.js';
import { Mlp } from './shared/mlp.js';
import { SelfAttention, separateQkv } from './shared/self-attention.js';
import { size } from './shared/sizes.js';

const { flag, nullable, orElse } = schema;

export interface Starcoder2Config extends LayerNormDecoderConfig {
  /** Biases of all products. */
  readonly bias: boolean;
  /** Keys that a query sees, itself included; null for all. */
  readonly slidingWindow: number | null;
  readonly activationClass: string;
}

const { layer_norm_eps: _, ...shape } = layerNormDecoderShape({
  vocab_size: 49152,
  hidden_size: 3072,
  intermediate_size: 12288,
  num_hidden_layers: 30,
  num_attention_heads: 24,
  hidden_act: 'gelu_tanh',
  max_position_embeddings: 4096,
  tie_word_embeddings: true,
});

const config = defineModel({
  modelType: 'starcoder2',
  shape: {
    ...shape,
    num_key_value_heads: orElse(size.heads, 2),
    head_dim: nullable(size.headDim),
    norm_epsilon: orElse(size.normEps, 1e-5),
    sliding_window: nullable(window),
    use_bias: flag(true),
  },
  alsoReads: ROPE_KEYS,
  expected: [...layerNormDecoderExpected, 'num_key_value_heads'],
  tokenIds: { bos: 50256, eos: 50256 },
  read: (keys, raw, context): Starcoder2Config => ({
    ...readLayerNormDecoder({ ...keys, layer_norm_eps: keys.norm_epsilon }, raw, context, {
      numKvHeads: keys.num_key_value_heads,
      headDim: keys.head_dim,
      mlpMatrices: 2,
    }),
    bias: keys.use_bias,
    slidingWindow: keys.sliding_window,
    activationClass: activationClass(String(raw.hidden_act ?? 'gelu_pytorch_tanh')),
  }),
});

function attention(settings: Starcoder2Config, rope: Rope): SelfAttention {
  const parts = separateQkv(settings, { bias: settings.bias });
  const children = { q_proj: parts.q, k_proj: parts.k, v_proj: parts.v, o_proj: parts.out };
  const window = settings.slidingWindow ?? 0;
  const options = (pass: Pass) => ({ window, rope: rope.in(pass) });
  return new SelfAttention('Starcoder2Attention', children, { ...parts, options });
}

function mlp({ hiddenSize, intermediateSize, hiddenAct, activationClass, bias }: Starcoder2Config): Mlp {
  const up = new Linear(hiddenSize, intermediateSize, { bias });
  const down = new Linear(intermediateSize, hiddenSize, { bias });
  const children = { c_fc: up, c_proj: down, act: activationPlace(hiddenAct, activationClass) };
  return new Mlp('Starcoder2MLP', children, { up, down, activation: hiddenAct });
}

function layer(settings: Starcoder2Config, rope: Rope): SequentialLayer {
  const norm = () => new LayerNorm(settings.hiddenSize, settings.layerNormEps);
  const parts = { attention: attention(settings, rope), mlp: mlp(settings), attentionNorm: norm(), mlpNorm: norm() };
  const children = {
    self_attn: parts.attention,
    mlp: parts.mlp,
    input_layernorm: parts.attentionNorm,
    post_attention_layernorm: parts.mlpNorm,
  };
  return new SequentialLayer('Starcoder2DecoderLayer', children, parts);
}

function model(settings: Starcoder2Config): Decoder {
  const rope = ropeOf('Starcoder2', settings);
  const norm = new LayerNorm(settings.hiddenSize, settings.layerNormEps);
  return rotaryDecoder('Starcoder2', settings, { rope, layer: () => layer(settings, rope), norm });
}

export const starcoder2 = architecture({
  config,
  heads: {
    causalLM: (settings) => new CausalHead('Starcoder2ForCausalLM', 'model', model(settings), settings.hiddenSize),
    base: model,
  },
  noSplit: ['Starcoder2DecoderLayer'],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'model',
  ignoredTensors: [/\.rotary_emb\.inv_freq$/],
  tied: { 'lm_head.weight': 'model.embed_tokens.weight' },
});
