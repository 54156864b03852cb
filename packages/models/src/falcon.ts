// Falcon (Almazrouei et al. 2023, arXiv 2311.16867; transformers models/falcon), which are three: 7B (one head of keys
// and values, attention and MLP side by side behind one layer norm), the new decoder architecture of 40B and later
// (grouped queries; two layer norms, or one in Falcon 2), and RW (a head of keys and values for each query, ALiBi,
// the MLP behind attention, biases).
import {
  ConfigError,
  defineModel,
  MAX_POSITIONS,
  maxContext,
  readRope,
  ROPE_KEYS,
  schema,
  type RopeConfig,
} from '@q/config';
import { packedQkv, type QkvLayout } from '@q/tensor';
import { architecture } from './architecture.js';
import { alibiTable, falconAlibiSlopes } from './nn/alibi.js';
import type { SelfAttentionOptions } from './nn/attention.js';
import { activationPlace, Embedding, LayerNorm, Place } from './nn/layers.js';
import { Linear } from './nn/linear.js';
import { ModuleList } from './nn/module.js';
import { Rope } from './nn/rope.js';
import type { Pass } from './pass/pass.js';
import { activation, type Activation } from './shared/activation.js';
import { CausalHead } from './shared/causal-head.js';
import { ParallelLayer, SequentialLayer } from './shared/decoder-layer.js';
import { Decoder, repeated } from './shared/decoder.js';
import { interleavedQkv } from './shared/interleaved-qkv.js';
import { Mlp } from './shared/mlp.js';
import { assertWholeHead } from './shared/rope-spelling.js';
import { SelfAttention } from './shared/self-attention.js';
import { assertDivides, assertPlausible, headDimOf, size } from './shared/sizes.js';

export interface FalconConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly maxPositionEmbeddings: number;
  readonly layerNormEps: number;
  readonly activation: Activation;
  readonly bias: boolean;
  /** Queries, keys and values of a group lie together, else all queries before all keys before all values. */
  readonly interleaved: boolean;
  /** Norms that read the input of a layer whose attention and MLP are side by side; 0: the MLP is behind attention. */
  readonly parallelNorms: 0 | 1 | 2;
  /** A bias by distance in place of rotations. */
  readonly alibi: boolean;
  readonly tieWordEmbeddings: boolean;
  readonly rope: RopeConfig;
}

const { flag, integer, nullable, orElse } = schema;

const config = defineModel({
  modelType: 'falcon',
  shape: {
    vocab_size: orElse(size.vocab, 65024),
    hidden_size: orElse(size.hidden, 4544),
    // An older name, which Python lets win.
    n_embed: nullable(size.hidden),
    num_hidden_layers: orElse(size.layers, 32),
    num_attention_heads: orElse(size.heads, 71),
    num_kv_heads: nullable(size.heads),
    num_ln_in_parallel_attn: nullable(integer),
    layer_norm_epsilon: orElse(size.normEps, 1e-5),
    alibi: flag(false),
    new_decoder_architecture: flag(false),
    multi_query: flag(true),
    parallel_attn: flag(true),
    bias: flag(false),
    max_position_embeddings: orElse(size.positions, 2048),
    ffn_hidden_size: nullable(size.intermediate),
    activation: orElse(activation, 'gelu'),
    tie_word_embeddings: flag(true),
  },
  alsoReads: ROPE_KEYS,
  expected: ['vocab_size', 'hidden_size', 'num_hidden_layers', 'num_attention_heads'],
  neutral: { apply_residual_connection_post_layernorm: [false] },
  tokenIds: { bos: 11, eos: 11 },
  read: (keys, raw, context): FalconConfig => {
    const { op } = context;
    const hiddenSize = keys.n_embed ?? keys.hidden_size;
    const { num_hidden_layers: numLayers, num_attention_heads: numHeads } = keys;
    const intermediateSize = keys.ffn_hidden_size ?? 4 * hiddenSize;
    const headDim = headDimOf(op, ['num_attention_heads', numHeads], ['hidden_size', hiddenSize]);
    const numKvHeads = kvHeadsOf(op, keys);
    const parameters = hiddenSize * (2 * keys.vocab_size + numLayers * (4 * hiddenSize + 2 * intermediateSize));
    assertPlausible(op, parameters, { hidden_size: hiddenSize, num_hidden_layers: numLayers });
    const maxPositionEmbeddings = keys.max_position_embeddings;
    const rope = readRope(raw, { ...context, headDim, maxPositionEmbeddings });
    assertWholeHead(op, rope);
    return {
      vocabSize: keys.vocab_size,
      hiddenSize,
      intermediateSize,
      numLayers,
      numHeads,
      numKvHeads,
      headDim,
      maxPositionEmbeddings,
      layerNormEps: keys.layer_norm_epsilon,
      activation: keys.activation,
      bias: keys.bias,
      interleaved: keys.new_decoder_architecture || !keys.multi_query,
      parallelNorms: parallelNormsOf(op, keys),
      alibi: keys.alibi,
      tieWordEmbeddings: keys.tie_word_embeddings,
      rope,
    };
  },
});

interface HeadKeys {
  readonly num_attention_heads: number;
  readonly num_kv_heads: number | null;
  readonly multi_query: boolean;
  readonly new_decoder_architecture: boolean;
}

/** Heads of keys and values; only the new architecture has groups. @throws ConfigError for a count that cannot be */
function kvHeadsOf(op: string, keys: HeadKeys): number {
  const { num_attention_heads: numHeads, num_kv_heads: given } = keys;
  if (keys.new_decoder_architecture) {
    const numKvHeads = given ?? numHeads;
    assertDivides(op, ['num_kv_heads', numKvHeads], ['num_attention_heads', numHeads]);
    return numKvHeads;
  }
  if (keys.multi_query) return 1; // whatever the file counts
  if (given === null || given === numHeads) return numHeads;
  throw new ConfigError(op, `num_kv_heads is ${given} and num_attention_heads ${numHeads}`, {
    why: 'without multi_query and new_decoder_architecture each query has a head of keys and values',
  });
}

interface NormKeys {
  readonly new_decoder_architecture: boolean;
  readonly parallel_attn: boolean;
  readonly num_ln_in_parallel_attn: number | null;
}

/** Norms before the parts that are side by side. @throws ConfigError for combinations that Python cannot compute */
function parallelNormsOf(op: string, keys: NormKeys): 0 | 1 | 2 {
  const { new_decoder_architecture: isNew, parallel_attn: parallel, num_ln_in_parallel_attn: given } = keys;
  if (!parallel && isNew)
    throw new ConfigError(op, 'parallel_attn is false', { why: 'must be true with new_decoder_architecture' });
  if (!parallel) return 0;
  const count = given ?? (isNew ? 2 : 1);
  if (count === 1 || (count === 2 && isNew)) return count;
  throw new ConfigError(op, `num_ln_in_parallel_attn is ${count}`, {
    why: isNew ? 'must be 1 or 2' : 'must be 1 without new_decoder_architecture',
  });
}

/** How a pass places queries and keys, the same in all layers. */
type Places = (pass: Pass) => SelfAttentionOptions;

const linear = (inFeatures: number, outFeatures: number, { bias }: FalconConfig) =>
  new Linear(inFeatures, outFeatures, { bias, className: 'FalconLinear' });

function layoutOf({ numHeads, numKvHeads, headDim, interleaved }: FalconConfig): QkvLayout {
  return interleaved ? interleavedQkv(numHeads, headDim, numKvHeads) : packedQkv(numHeads, numKvHeads, headDim);
}

function attention(settings: FalconConfig, options: Places): SelfAttention {
  const { hiddenSize } = settings;
  const layout = layoutOf(settings);
  const qkv = linear(hiddenSize, layout.rowStride, settings);
  const out = linear(hiddenSize, hiddenSize, settings);
  const children = { query_key_value: qkv, dense: out, attention_dropout: new Place('Dropout') };
  return new SelfAttention('FalconAttention', children, { qkv: [qkv], out, layout, options });
}

function mlp(settings: FalconConfig): Mlp {
  const { hiddenSize, intermediateSize, activation } = settings;
  const up = linear(hiddenSize, intermediateSize, settings);
  const down = linear(intermediateSize, hiddenSize, settings);
  const children = { dense_h_to_4h: up, act: activationPlace(activation), dense_4h_to_h: down };
  return new Mlp('FalconMLP', children, { up, down, activation });
}

function layer(settings: FalconConfig, options: Places): ParallelLayer | SequentialLayer {
  const norm = () => new LayerNorm(settings.hiddenSize, settings.layerNormEps);
  const attentionNorm = norm();
  const mlpNorm = norm();
  const parts = { attention: attention(settings, options), mlp: mlp(settings), attentionNorm };
  const before = { self_attention: parts.attention, mlp: parts.mlp };
  const name = 'FalconDecoderLayer';
  if (settings.parallelNorms === 0) {
    const norms = { post_attention_layernorm: mlpNorm, input_layernorm: attentionNorm };
    return new SequentialLayer(name, { ...before, ...norms }, { ...parts, mlpNorm });
  }
  if (settings.parallelNorms === 1)
    return new ParallelLayer(name, { ...before, input_layernorm: attentionNorm }, { ...parts, addsFirst: 'sum' });
  const norms = { ln_attn: attentionNorm, ln_mlp: mlpNorm };
  return new ParallelLayer(name, { ...before, ...norms }, { ...parts, mlpNorm, addsFirst: 'sum' });
}

function model(settings: FalconConfig): Decoder {
  const { vocabSize, hiddenSize, numLayers, numHeads, numKvHeads, headDim, alibi, maxPositionEmbeddings } = settings;
  const rope = new Rope('FalconRotaryEmbedding', settings.rope, { rotaryDim: headDim, maxPositionEmbeddings });
  const slopes = alibiTable(falconAlibiSlopes(numHeads, headDim));
  const options: Places = alibi
    ? ({ backend }) => ({ alibiSlopes: slopes.on(backend) })
    : (pass) => ({ rope: rope.in(pass) });
  const embedding = new Embedding(vocabSize, hiddenSize);
  const layers = new ModuleList(repeated(numLayers, () => layer(settings, options)));
  const norm = new LayerNorm(hiddenSize, settings.layerNormEps);
  const children = { word_embeddings: embedding, h: layers, ln_f: norm, rotary_emb: rope };
  return new Decoder('FalconModel', children, {
    vocabSize,
    maxContext: alibi ? MAX_POSITIONS : maxContext(settings),
    numKvHeads,
    headDim,
    readsPositions: !alibi,
    embed: (pass) => embedding.forward(pass.inputs.tokenIds!, pass.dtype),
    layers,
    norm,
    tables: [slopes],
  });
}

export const falcon = architecture({
  config,
  heads: {
    causalLM: (settings) => new CausalHead('FalconForCausalLM', 'transformer', model(settings), settings.hiddenSize),
    base: model,
  },
  noSplit: ['FalconDecoderLayer'],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'transformer',
  ignoredTensors: [/\.rotary_emb\.inv_freq$/],
  tied: { 'lm_head.weight': 'transformer.word_embeddings.weight' },
});
