// XGLM (Lin et al. 2021, arXiv 2112.10668; transformers models/xglm): pre-norm decoder with layer norms and biases
// everywhere; positions are sines and cosines from row 2 on, added to scaled token vectors; tied head.
import { ConfigError, defineModel, schema, type JsonObject } from '@q/config';
import { add } from '@q/tensor';
import { architecture } from './architecture.js';
import { activationPlace, Embedding, LayerNorm } from './nn/layers.js';
import { Linear } from './nn/linear.js';
import { ModuleList } from './nn/module.js';
import { SinusoidalPositions } from './nn/sinusoidal.js';
import { activation, type Activation } from './shared/activation.js';
import { CausalHead } from './shared/causal-head.js';
import { SequentialLayer } from './shared/decoder-layer.js';
import { Decoder, repeated } from './shared/decoder.js';
import { Mlp } from './shared/mlp.js';
import { SelfAttention, separateQkv } from './shared/self-attention.js';
import { assertPlausible, headDimOf, oneOf, size } from './shared/sizes.js';

export interface XglmConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly ffnDim: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly headDim: number;
  readonly maxPositionEmbeddings: number;
  readonly activation: Activation;
  /** Token vectors are multiplied by the root of their width. */
  readonly scaleEmbedding: boolean;
  /** A row of zeros in the table of positions, by the number of the padding token; null for none. */
  readonly paddingRow: number | null;
  readonly tieWordEmbeddings: boolean;
}

const { flag, integer, nullable, orElse } = schema;

/** Position p is row p + 2 of the table. */
const OFFSET = 2;

const config = defineModel({
  modelType: 'xglm',
  shape: {
    vocab_size: orElse(size.vocab, 256008),
    max_position_embeddings: orElse(size.positions, 2048),
    d_model: nullable(size.hidden),
    hidden_size: nullable(size.hidden),
    ffn_dim: orElse(size.intermediate, 4096),
    num_layers: nullable(size.layers),
    num_hidden_layers: nullable(size.layers),
    attention_heads: nullable(size.heads),
    num_attention_heads: nullable(size.heads),
    activation_function: orElse(activation, 'gelu'),
    scale_embedding: flag(true),
    pad_token_id: integer.nullish(),
    tie_word_embeddings: flag(true),
  },
  expected: ['vocab_size', 'ffn_dim'],
  tokenIds: { bos: 0, eos: 2, pad: 1 },
  read: (keys, _raw: JsonObject, { op }): XglmConfig => {
    const { d_model, hidden_size, num_layers, num_hidden_layers, attention_heads, num_attention_heads } = keys;
    const hiddenSize = oneOf(op, { d_model, hidden_size }, 1024);
    const numLayers = oneOf(op, { num_layers, num_hidden_layers }, 24);
    const numHeads = oneOf(op, { attention_heads, num_attention_heads }, 16);
    const headDim = headDimOf(op, ['attention_heads', numHeads], ['d_model', hiddenSize]);
    const { ffn_dim: ffnDim, max_position_embeddings: maxPositionEmbeddings } = keys;
    const tables = keys.vocab_size + maxPositionEmbeddings;
    const parameters = hiddenSize * (tables + 2 * numLayers * (2 * hiddenSize + ffnDim));
    assertPlausible(op, parameters, { d_model: hiddenSize, num_layers: numLayers, max_position_embeddings: tables });
    if (hiddenSize < 4 || hiddenSize % 2 !== 0)
      throw new ConfigError(op, `d_model is ${hiddenSize}`, { why: 'must be even for sines and cosines, 4 or more' });
    const paddingRow = keys.pad_token_id === undefined ? 1 : keys.pad_token_id;
    if (paddingRow !== null && (paddingRow < 0 || paddingRow >= maxPositionEmbeddings + OFFSET))
      throw new ConfigError(op, `pad_token_id is ${paddingRow}`, {
        why: `the table of positions has ${maxPositionEmbeddings + OFFSET} rows, and that one is set to zeros`,
      });
    return {
      vocabSize: keys.vocab_size,
      hiddenSize,
      ffnDim,
      numLayers,
      numHeads,
      headDim,
      maxPositionEmbeddings,
      activation: keys.activation_function,
      scaleEmbedding: keys.scale_embedding,
      paddingRow,
      tieWordEmbeddings: keys.tie_word_embeddings,
    };
  },
});

function attention(settings: XglmConfig): SelfAttention {
  const parts = separateQkv({ ...settings, numKvHeads: settings.numHeads }, { bias: true });
  const children = { k_proj: parts.k, v_proj: parts.v, q_proj: parts.q, out_proj: parts.out };
  return new SelfAttention('XGLMAttention', children, parts);
}

function layer(settings: XglmConfig): SequentialLayer {
  const { hiddenSize, ffnDim, activation } = settings;
  const up = new Linear(hiddenSize, ffnDim, { bias: true });
  const down = new Linear(ffnDim, hiddenSize, { bias: true });
  const parts = {
    attention: attention(settings),
    attentionNorm: new LayerNorm(hiddenSize, 1e-5),
    mlp: new Mlp('', {}, { up, down, activation }), // no module of its own in Python
    mlpNorm: new LayerNorm(hiddenSize, 1e-5),
  };
  const children = {
    self_attn: parts.attention,
    activation_fn: activationPlace(activation),
    self_attn_layer_norm: parts.attentionNorm,
    fc1: up,
    fc2: down,
    final_layer_norm: parts.mlpNorm,
  };
  return new SequentialLayer('XGLMDecoderLayer', children, parts);
}

function model(settings: XglmConfig): Decoder {
  const { vocabSize, hiddenSize, numLayers, numHeads, headDim, maxPositionEmbeddings, paddingRow } = settings;
  const scale = settings.scaleEmbedding ? Math.sqrt(hiddenSize) : 1;
  const embedding = new Embedding(vocabSize, hiddenSize, { scale, className: 'XGLMScaledWordEmbedding' });
  const positions = new SinusoidalPositions('XGLMSinusoidalPositionalEmbedding', {
    count: maxPositionEmbeddings,
    width: hiddenSize,
    offset: OFFSET,
    zeroRow: paddingRow,
  });
  const layers = new ModuleList(repeated(numLayers, () => layer(settings)));
  const norm = new LayerNorm(hiddenSize, 1e-5);
  const children = { embed_tokens: embedding, embed_positions: positions, layers, layer_norm: norm };
  return new Decoder('XGLMModel', children, {
    vocabSize,
    maxContext: maxPositionEmbeddings,
    numKvHeads: numHeads,
    headDim,
    embed: (pass) => add(embedding.forward(pass.inputs.tokenIds!, pass.dtype), positions.forward(pass)),
    layers,
    norm,
  });
}

export const xglm = architecture({
  config,
  heads: {
    causalLM: (settings) => new CausalHead('XGLMForCausalLM', 'model', model(settings), settings.hiddenSize),
    base: model,
  },
  noSplit: ['XGLMDecoderLayer'],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'model',
  ignoredTensors: [/\.embed_positions\.weights$/],
  tied: { 'lm_head.weight': 'model.embed_tokens.weight' },
});
