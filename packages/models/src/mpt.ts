// MPT (MosaicML 2023; transformers models/mpt): pre-norm decoder without any bias, ALiBi with slopes of its own,
// queries, keys and values from one product; tied head.
import { checkKeys, defineModel, isPlainObject, schema, UnsupportedError, type JsonValue } from '@q/config';
import { packedQkv } from '@q/tensor';
import { z } from 'zod';
import { architecture } from './architecture.js';
import { alibiTable, mptAlibiSlopes } from './nn/alibi.js';
import type { Constant } from './nn/constant.js';
import { Embedding, LayerNorm, Place } from './nn/layers.js';
import { Linear } from './nn/linear.js';
import { ModuleList } from './nn/module.js';
import { CausalHead } from './shared/causal-head.js';
import { SequentialLayer } from './shared/decoder-layer.js';
import { Decoder, repeated } from './shared/decoder.js';
import { Mlp } from './shared/mlp.js';
import { SelfAttention } from './shared/self-attention.js';
import { assertPlausible, headDimOf, oneOf, size } from './shared/sizes.js';

export interface MptConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly headDim: number;
  /** Tokens it was trained for; Python has no bias beyond them. */
  readonly maxSeqLen: number;
  readonly layerNormEps: number;
  /** What the slopes fall to: 2^-alibiBiasMax. */
  readonly alibiBiasMax: number;
  /** Factor on the scores; null: 1 / sqrt(headDim). */
  readonly softmaxScale: number | null;
  readonly tieWordEmbeddings: boolean;
}

const { flag, nullable, orElse, positive, real, text } = schema;

const attentionShape = {
  alibi: flag(true),
  alibi_bias_max: orElse(positive.max(1000, { error: 'must be at most 1000' }), 8),
  attn_type: orElse(text, 'multihead_attention'),
  attn_uses_sequence_id: flag(false),
  clip_qkv: nullable(real),
  prefix_lm: flag(false),
  qk_ln: flag(false),
  rope: flag(false),
  softmax_scale: nullable(real.gt(0, { error: 'must be above 0' })),
};

const config = defineModel({
  modelType: 'mpt',
  shape: {
    vocab_size: orElse(size.vocab, 50368),
    d_model: nullable(size.hidden),
    hidden_size: nullable(size.hidden),
    n_heads: nullable(size.heads),
    num_attention_heads: nullable(size.heads),
    n_layers: nullable(size.layers),
    num_hidden_layers: nullable(size.layers),
    expansion_ratio: orElse(size.intermediate, 4),
    max_seq_len: orElse(size.positions, 2048),
    layer_norm_epsilon: orElse(size.normEps, 1e-5),
    attn_config: orElse(z.object(attentionShape, { error: 'must be an object' }), z.object(attentionShape).parse({})),
    logit_scale: nullable(z.union([real, text], { error: 'must be a number' })),
    no_bias: flag(true),
    norm_type: orElse(text, 'low_precision_layernorm'),
    tie_word_embeddings: flag(true),
  },
  // Of training; and positions that are learned only where there is no ALiBi.
  alsoReads: ['embedding_fraction', 'learned_pos_emb', 'verbose'],
  expected: ['vocab_size', 'max_seq_len'],
  read: (keys, raw, { op, warn }): MptConfig => {
    const { attn_config: attention, d_model, hidden_size, n_heads, num_attention_heads } = keys;
    const { n_layers, num_hidden_layers } = keys;
    if (isPlainObject(raw.attn_config))
      for (const line of checkKeys(op, raw.attn_config, { read: attentionKeys, place: 'attn_config' })) warn(line);
    refuseOthers(op, { ...keys, ...attention });
    const hiddenSize = oneOf(op, { d_model, hidden_size }, 2048);
    const numHeads = oneOf(op, { n_heads, num_attention_heads }, 16);
    const numLayers = oneOf(op, { n_layers, num_hidden_layers }, 24);
    const intermediateSize = keys.expansion_ratio * hiddenSize;
    const parameters = hiddenSize * (keys.vocab_size + numLayers * (4 * hiddenSize + 2 * intermediateSize));
    assertPlausible(op, parameters, { d_model: hiddenSize, n_layers: numLayers });
    return {
      vocabSize: keys.vocab_size,
      hiddenSize,
      intermediateSize,
      numLayers,
      numHeads,
      headDim: headDimOf(op, ['n_heads', numHeads], ['d_model', hiddenSize]),
      maxSeqLen: keys.max_seq_len,
      layerNormEps: keys.layer_norm_epsilon,
      alibiBiasMax: attention.alibi_bias_max,
      softmaxScale: attention.softmax_scale,
      tieWordEmbeddings: keys.tie_word_embeddings,
    };
  },
});

const attentionKeys = [...Object.keys(attentionShape), 'attn_impl', 'attn_pdrop', 'model_type'];

/** What MPT's own code computes for these values; transformers passes over most of them. */
const parts: Readonly<Record<string, { readonly as: readonly JsonValue[]; readonly why: string }>> = {
  alibi: { as: [true], why: 'learned positions are not computed' },
  attn_type: { as: ['multihead_attention'], why: 'keys and values of one head are not computed' },
  attn_uses_sequence_id: { as: [false], why: 'masks of parts of a sequence are not computed' },
  clip_qkv: { as: [null, 0], why: 'queries, keys and values are not clipped' },
  prefix_lm: { as: [false], why: 'prefixes that see each other are not computed' },
  qk_ln: { as: [false], why: 'norms of queries and keys are not computed' },
  rope: { as: [false], why: 'rotations are not computed' },
  logit_scale: { as: [null], why: 'logits are not scaled' },
  no_bias: { as: [true], why: 'layers have no bias' },
  norm_type: { as: ['low_precision_layernorm', 'layernorm'], why: 'norms are layer norms' },
};

/** @throws UnsupportedError for a part of the computation that is not there */
function refuseOthers(op: string, keys: Readonly<Record<string, unknown>>): void {
  for (const [key, { as, why }] of Object.entries(parts)) {
    if (as.includes(keys[key] as JsonValue)) continue;
    throw new UnsupportedError(op, `${key} is ${JSON.stringify(keys[key])}`, {
      why,
      fix: `supported: ${as.map((value) => JSON.stringify(value)).join(', ')}`,
    });
  }
}

function attention({ hiddenSize, numHeads, headDim, softmaxScale }: MptConfig, slopes: Constant): SelfAttention {
  const qkv = new Linear(hiddenSize, 3 * hiddenSize);
  const out = new Linear(hiddenSize, hiddenSize);
  const scale = softmaxScale ?? undefined;
  return new SelfAttention(
    'MptAttention',
    { Wqkv: qkv, out_proj: out },
    {
      qkv: [qkv],
      out,
      layout: packedQkv(numHeads, numHeads, headDim),
      options: ({ backend }) => ({ scale, alibiSlopes: slopes.on(backend) }),
    },
  );
}

function mlp({ hiddenSize, intermediateSize }: MptConfig): Mlp {
  const up = new Linear(hiddenSize, intermediateSize);
  const down = new Linear(intermediateSize, hiddenSize);
  const children = { up_proj: up, act: new Place('GELU'), down_proj: down };
  return new Mlp('MptMLP', children, { up, down, activation: 'gelu' });
}

const normOf = ({ hiddenSize, layerNormEps }: MptConfig) => new LayerNorm(hiddenSize, layerNormEps, { bias: false });

function block(settings: MptConfig, slopes: Constant): SequentialLayer {
  const made = {
    attentionNorm: normOf(settings),
    attention: attention(settings, slopes),
    mlpNorm: normOf(settings),
    mlp: mlp(settings),
  };
  const children = {
    norm_1: made.attentionNorm,
    attn: made.attention,
    norm_2: made.mlpNorm,
    ffn: made.mlp,
    resid_attn_dropout: new Place('Dropout'),
  };
  return new SequentialLayer('MptBlock', children, made);
}

function model(settings: MptConfig): Decoder {
  const { vocabSize, hiddenSize, numLayers, numHeads, headDim } = settings;
  const slopes = alibiTable(mptAlibiSlopes(numHeads, settings.alibiBiasMax));
  const embedding = new Embedding(vocabSize, hiddenSize);
  const blocks = new ModuleList(repeated(numLayers, () => block(settings, slopes)));
  const norm = normOf(settings);
  return new Decoder(
    'MptModel',
    { wte: embedding, blocks, norm_f: norm },
    {
      vocabSize,
      maxContext: settings.maxSeqLen,
      numKvHeads: numHeads,
      headDim,
      readsPositions: false,
      embed: (pass) => embedding.forward(pass.inputs.tokenIds!, pass.dtype),
      layers: blocks,
      norm,
      tables: [slopes],
    },
  );
}

export const mpt = architecture({
  config,
  heads: {
    causalLM: (settings) => new CausalHead('MptForCausalLM', 'transformer', model(settings), settings.hiddenSize),
    base: model,
  },
  noSplit: ['MptBlock'],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'transformer',
  ignoredTensors: [],
  tied: { 'lm_head.weight': 'transformer.wte.weight' },
});
