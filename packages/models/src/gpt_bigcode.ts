// SantaCoder and StarCoder (Li et al. 2023, arXiv 2305.06161; transformers models/gpt_bigcode): GPT-2 with one head of
// keys and values for all queries (or, with `multi_query` false, one each) and weights of linear layers as usual.
import { defineModel, schema, type JsonObject } from '@q/config';
import { add, packedQkv } from '@q/tensor';
import { architecture } from './architecture.js';
import { Embedding, LayerNorm, LearnedPositions, Place } from './nn/layers.js';
import { Linear } from './nn/linear.js';
import { ModuleList } from './nn/module.js';
import { activation, activationClass, type Activation } from './shared/activation.js';
import { CausalHead } from './shared/causal-head.js';
import { SequentialLayer } from './shared/decoder-layer.js';
import { Decoder, repeated } from './shared/decoder.js';
import { gpt2AlsoReads, gpt2Sizes, readGpt2Sizes, type Gpt2Sizes } from './shared/gpt2-sizes.js';
import { interleavedQkv } from './shared/interleaved-qkv.js';
import { Mlp } from './shared/mlp.js';
import { SelfAttention } from './shared/self-attention.js';
import { assertPlausible, size } from './shared/sizes.js';

export interface GptBigCodeConfig extends Gpt2Sizes {
  readonly vocabSize: number;
  /** One head of keys and values for all queries, else one for each. */
  readonly multiQuery: boolean;
  readonly activation: Activation;
  /** Python class of the activation. */
  readonly activationClass: string;
  /** Scores are divided by the root of the size of a head. */
  readonly scaleScores: boolean;
  readonly layerNormEps: number;
  readonly tieWordEmbeddings: boolean;
}

const { flag, orElse } = schema;

const config = defineModel({
  modelType: 'gpt_bigcode',
  shape: {
    ...gpt2Sizes,
    vocab_size: orElse(size.vocab, 50257),
    activation_function: orElse(activation, 'gelu_tanh'),
    layer_norm_epsilon: orElse(size.normEps, 1e-5),
    scale_attn_weights: flag(true),
    multi_query: flag(true),
    tie_word_embeddings: flag(true),
  },
  // How Python's class goes about the softmax and its cache, and a count that follows from `multi_query`.
  alsoReads: [
    ...gpt2AlsoReads,
    'attention_softmax_in_fp32',
    'scale_attention_softmax_in_fp32',
    'num_key_value_heads',
    'inference_runner',
    'validate_runner_input',
    'pre_allocate_kv_cache',
    'pad_key_length',
    'max_batch_size',
  ],
  expected: ['vocab_size'],
  tokenIds: { bos: 50256, eos: 50256 },
  read: (keys, raw: JsonObject, { op }): GptBigCodeConfig => {
    const sizes = readGpt2Sizes(op, keys, { n_embd: 768, n_layer: 12, n_head: 12, n_positions: 1024 });
    const { hiddenSize, intermediateSize, numLayers } = sizes;
    const tables = keys.vocab_size + sizes.maxPositionEmbeddings;
    const parameters = hiddenSize * (tables + 2 * numLayers * (2 * hiddenSize + intermediateSize));
    assertPlausible(op, parameters, { n_embd: hiddenSize, n_layer: numLayers, n_inner: intermediateSize });
    return {
      ...sizes,
      vocabSize: keys.vocab_size,
      multiQuery: keys.multi_query,
      activation: keys.activation_function,
      activationClass: activationClass(String(raw.activation_function ?? 'gelu_pytorch_tanh')),
      scaleScores: keys.scale_attn_weights,
      layerNormEps: keys.layer_norm_epsilon,
      tieWordEmbeddings: keys.tie_word_embeddings,
    };
  },
});

function attention({ hiddenSize, numHeads, headDim, multiQuery, scaleScores }: GptBigCodeConfig): SelfAttention {
  const layout = multiQuery ? packedQkv(numHeads, 1, headDim) : interleavedQkv(numHeads, headDim);
  const qkv = new Linear(hiddenSize, layout.rowStride, { bias: true });
  const out = new Linear(hiddenSize, hiddenSize, { bias: true });
  const children = { c_attn: qkv, c_proj: out, resid_dropout: new Place('Dropout') };
  const options = () => ({ scale: scaleScores ? undefined : 1 });
  return new SelfAttention('GPTBigCodeAttention', children, { qkv: [qkv], out, layout, options });
}

function mlp({ hiddenSize, intermediateSize, activation, activationClass }: GptBigCodeConfig): Mlp {
  const up = new Linear(hiddenSize, intermediateSize, { bias: true });
  const down = new Linear(intermediateSize, hiddenSize, { bias: true });
  const children = { c_fc: up, c_proj: down, act: new Place(activationClass), dropout: new Place('Dropout') };
  return new Mlp('GPTBigCodeMLP', children, { up, down, activation });
}

function block(settings: GptBigCodeConfig): SequentialLayer {
  const norm = () => new LayerNorm(settings.hiddenSize, settings.layerNormEps);
  const parts = { attentionNorm: norm(), attention: attention(settings), mlpNorm: norm(), mlp: mlp(settings) };
  const children = { ln_1: parts.attentionNorm, attn: parts.attention, ln_2: parts.mlpNorm, mlp: parts.mlp };
  return new SequentialLayer('GPTBigCodeBlock', children, parts);
}

function model(settings: GptBigCodeConfig): Decoder {
  const { vocabSize, hiddenSize, numLayers, numHeads, headDim, maxPositionEmbeddings: length } = settings;
  const embedding = new Embedding(vocabSize, hiddenSize);
  const positions = new LearnedPositions(length, hiddenSize);
  const layers = new ModuleList(repeated(numLayers, () => block(settings)));
  const norm = new LayerNorm(hiddenSize, settings.layerNormEps);
  const children = { wte: embedding, wpe: positions, drop: new Place('Dropout'), h: layers, ln_f: norm };
  const made = new Decoder('GPTBigCodeModel', children, {
    vocabSize,
    maxContext: length,
    numKvHeads: settings.multiQuery ? 1 : numHeads,
    headDim,
    embed: ({ inputs, rows, dtype }) =>
      add(embedding.forward(inputs.tokenIds!, dtype), positions.forward(rows.positions, dtype)),
    layers,
    norm,
  });
  made.buffers.set('bias', { shape: [length, length], dtype: 'bool' }); // Python's causal mask
  return made;
}

export const gptBigCode = architecture({
  config,
  heads: {
    causalLM: (settings) =>
      new CausalHead('GPTBigCodeForCausalLM', 'transformer', model(settings), settings.hiddenSize),
    base: model,
  },
  noSplit: ['GPTBigCodeBlock'],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'transformer',
  ignoredTensors: [/\.attn\.(bias|masked_bias)$/],
  tied: { 'lm_head.weight': 'transformer.wte.weight' },
});
