// GPT-NeoX and Pythia (Black et al. 2022, arXiv 2204.06745; transformers models/gpt_neox): decoder with layer norms,
// attention and MLP side by side on the same input; q, k and v of a head lie together; a part of each head is rotated.
import { defineModel, maxContext, ROPE_KEYS, ROPE_THETA, schema } from '@q/config';
import { architecture } from './architecture.js';
import { activationPlace, Embedding, LayerNorm, Place } from './nn/layers.js';
import { Linear } from './nn/linear.js';
import { ModuleList } from './nn/module.js';
import type { Rope } from './nn/rope.js';
import { CausalHead } from './shared/causal-head.js';
import { ParallelLayer, SequentialLayer } from './shared/decoder-layer.js';
import { Decoder, repeated } from './shared/decoder.js';
import { interleavedQkv } from './shared/interleaved-qkv.js';
import {
  layerNormDecoderExpected,
  layerNormDecoderShape,
  readLayerNormDecoder,
  ropeOf,
  type LayerNormDecoderConfig,
} from './shared/layer-norm-decoder.js';
import { Mlp } from './shared/mlp.js';
import { rotaryShare } from './shared/rope-spelling.js';
import { SelfAttention } from './shared/self-attention.js';

export interface GptNeoxConfig extends LayerNormDecoderConfig {
  /** Bias of the projections of attention; those of the MLP always have one. */
  readonly attentionBias: boolean;
  /** Attention and MLP both read the input of the layer, else the MLP reads what attention leaves. */
  readonly parallelResidual: boolean;
}

const { flag, nullable, realIn } = schema;

const config = defineModel({
  modelType: 'gpt_neox',
  shape: {
    ...layerNormDecoderShape({
      vocab_size: 50432,
      hidden_size: 6144,
      intermediate_size: 24576,
      num_hidden_layers: 44,
      num_attention_heads: 64,
      hidden_act: 'gelu',
      max_position_embeddings: 2048,
      tie_word_embeddings: false,
    }),
    use_parallel_residual: flag(true),
    attention_bias: flag(true),
    // Spellings of transformers 4, and those that its last versions wrote beside them.
    rotary_emb_base: nullable(realIn(ROPE_THETA)),
    rope_theta: nullable(realIn(ROPE_THETA)),
    rotary_pct: rotaryShare,
    partial_rotary_factor: rotaryShare,
  },
  alsoReads: ROPE_KEYS,
  expected: layerNormDecoderExpected,
  tokenIds: { bos: 0, eos: 2 },
  read: (keys, raw, context): GptNeoxConfig => {
    const { rotary_emb_base, rotary_pct } = keys;
    const rope = { share: 0.25, bases: { rotary_emb_base }, shares: { rotary_pct } };
    return {
      ...readLayerNormDecoder(keys, raw, context, { mlpMatrices: 2, rope }),
      attentionBias: keys.attention_bias,
      parallelResidual: keys.use_parallel_residual,
    };
  },
});

function attention({ hiddenSize, numHeads, headDim, attentionBias: bias }: GptNeoxConfig, rope: Rope): SelfAttention {
  const qkv = new Linear(hiddenSize, 3 * hiddenSize, { bias });
  const out = new Linear(hiddenSize, hiddenSize, { bias });
  const children = { query_key_value: qkv, dense: out };
  const layout = interleavedQkv(numHeads, headDim);
  return new SelfAttention('GPTNeoXAttention', children, {
    qkv: [qkv],
    out,
    layout,
    options: (pass) => ({ rope: rope.in(pass) }),
  });
}

function mlp({ hiddenSize, intermediateSize, hiddenAct }: GptNeoxConfig): Mlp {
  const up = new Linear(hiddenSize, intermediateSize, { bias: true });
  const down = new Linear(intermediateSize, hiddenSize, { bias: true });
  const children = { dense_h_to_4h: up, dense_4h_to_h: down, act: activationPlace(hiddenAct) };
  return new Mlp('GPTNeoXMLP', children, { up, down, activation: hiddenAct });
}

function layer(settings: GptNeoxConfig, rope: Rope): ParallelLayer | SequentialLayer {
  const norm = () => new LayerNorm(settings.hiddenSize, settings.layerNormEps);
  const parts = {
    attentionNorm: norm(),
    mlpNorm: norm(),
    attention: attention(settings, rope),
    mlp: mlp(settings),
  };
  const children = {
    input_layernorm: parts.attentionNorm,
    post_attention_layernorm: parts.mlpNorm,
    post_attention_dropout: new Place('Dropout'),
    post_mlp_dropout: new Place('Dropout'),
    attention: parts.attention,
    mlp: parts.mlp,
  };
  return settings.parallelResidual
    ? new ParallelLayer('GPTNeoXLayer', children, { ...parts, addsFirst: 'sum' })
    : new SequentialLayer('GPTNeoXLayer', children, parts);
}

/** The decoder without a head. */
function model(settings: GptNeoxConfig): Decoder {
  const { vocabSize, hiddenSize, numLayers, numKvHeads, headDim } = settings;
  const rope = ropeOf('GPTNeoX', settings);
  const embedding = new Embedding(vocabSize, hiddenSize);
  const layers = new ModuleList(repeated(numLayers, () => layer(settings, rope)));
  const norm = new LayerNorm(hiddenSize, settings.layerNormEps);
  const children = {
    embed_in: embedding,
    emb_dropout: new Place('Dropout'),
    layers,
    final_layer_norm: norm,
    rotary_emb: rope,
  };
  return new Decoder('GPTNeoXModel', children, {
    vocabSize,
    maxContext: maxContext(settings),
    numKvHeads,
    headDim,
    embed: (pass) => embedding.forward(pass.inputs.tokenIds!, pass.dtype),
    layers,
    norm,
  });
}

export const gptNeox = architecture({
  config,
  heads: {
    causalLM: (settings) => new CausalHead('GPTNeoXForCausalLM', 'gpt_neox', model(settings), settings.hiddenSize),
    base: model,
  },
  noSplit: ['GPTNeoXLayer'],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'gpt_neox',
  checkpoint: (name) => (name === 'lm_head.weight' ? [{ name: 'embed_out.weight' }, { name }] : undefined),
  ignoredTensors: [/\.attention\.(bias|masked_bias)$/, /\.rotary_emb\.inv_freq$/],
  tied: { 'lm_head.weight': 'gpt_neox.embed_in.weight' },
});
