// GPT-J (Wang and Komatsuzaki 2021; transformers models/gptj): decoder with one layer norm per layer, attention and MLP
// side by side; neighbouring pairs of the first `rotary_dim` elements of a head are rotated; a head with a bias.
import { ConfigError, defineModel, schema, type JsonObject } from '@q/config';
import { architecture } from './architecture.js';
import { activationPlace, Embedding, LayerNorm, Place } from './nn/layers.js';
import { Linear } from './nn/linear.js';
import { ModuleList } from './nn/module.js';
import { Rope } from './nn/rope.js';
import type { Pass } from './pass/pass.js';
import { activation, type Activation } from './shared/activation.js';
import { CausalHead } from './shared/causal-head.js';
import { ParallelLayer } from './shared/decoder-layer.js';
import { Decoder, repeated } from './shared/decoder.js';
import { gpt2AlsoReads, gpt2Sizes, readGpt2Sizes, type Gpt2Sizes } from './shared/gpt2-sizes.js';
import { Mlp } from './shared/mlp.js';
import { SelfAttention, separateQkv } from './shared/self-attention.js';
import { assertPlausible, size } from './shared/sizes.js';

export interface GptjConfig extends Gpt2Sizes {
  readonly vocabSize: number;
  /** Elements of a head that are rotated. */
  readonly rotaryDim: number;
  readonly activation: Activation;
  readonly layerNormEps: number;
  readonly tieWordEmbeddings: boolean;
}

const { flag, orElse } = schema;

const config = defineModel({
  modelType: 'gptj',
  shape: {
    ...gpt2Sizes,
    vocab_size: orElse(size.vocab, 50400),
    rotary_dim: orElse(size.headDim, 64),
    activation_function: orElse(activation, 'gelu_tanh'),
    layer_norm_epsilon: orElse(size.normEps, 1e-5),
    tie_word_embeddings: flag(false),
  },
  alsoReads: gpt2AlsoReads,
  expected: ['vocab_size', 'rotary_dim'],
  tokenIds: { bos: 50256, eos: 50256 },
  read: (keys, _raw: JsonObject, { op }): GptjConfig => {
    const sizes = readGpt2Sizes(op, keys, { n_embd: 4096, n_layer: 28, n_head: 16, n_positions: 2048 });
    const { hiddenSize, intermediateSize, numLayers, headDim } = sizes;
    const parameters = 2 * hiddenSize * (keys.vocab_size + numLayers * (2 * hiddenSize + intermediateSize));
    assertPlausible(op, parameters, { n_embd: hiddenSize, n_layer: numLayers, n_inner: intermediateSize });
    const rotaryDim = keys.rotary_dim;
    if (rotaryDim % 2 !== 0 || rotaryDim > headDim)
      throw new ConfigError(op, `rotary_dim is ${rotaryDim}`, {
        why: `must be even, and at most the ${headDim} elements of a head`,
      });
    return {
      ...sizes,
      vocabSize: keys.vocab_size,
      rotaryDim,
      activation: keys.activation_function,
      layerNormEps: keys.layer_norm_epsilon,
      tieWordEmbeddings: keys.tie_word_embeddings,
    };
  },
});

function attention(settings: GptjConfig, rope: Rope): SelfAttention {
  const { numHeads: numKvHeads, maxPositionEmbeddings, rotaryDim } = settings;
  const parts = separateQkv({ ...settings, numKvHeads });
  const places = { attn_dropout: new Place('Dropout'), resid_dropout: new Place('Dropout') };
  const children = { ...places, k_proj: parts.k, v_proj: parts.v, q_proj: parts.q, out_proj: parts.out };
  const options = (pass: Pass) => ({ rope: rope.in(pass) });
  const made = new SelfAttention('GPTJAttention', children, { ...parts, options });
  // Python keeps the sines and cosines of all positions in each layer.
  made.buffers.set('embed_positions', { shape: [maxPositionEmbeddings, rotaryDim], dtype: 'float32' });
  return made;
}

function mlp({ hiddenSize, intermediateSize, activation }: GptjConfig): Mlp {
  const up = new Linear(hiddenSize, intermediateSize, { bias: true });
  const down = new Linear(intermediateSize, hiddenSize, { bias: true });
  const children = { fc_in: up, fc_out: down, act: activationPlace(activation), dropout: new Place('Dropout') };
  return new Mlp('GPTJMLP', children, { up, down, activation });
}

function block(settings: GptjConfig, rope: Rope): ParallelLayer {
  const parts = {
    attentionNorm: new LayerNorm(settings.hiddenSize, settings.layerNormEps),
    attention: attention(settings, rope),
    mlp: mlp(settings),
  };
  const children = { ln_1: parts.attentionNorm, attn: parts.attention, mlp: parts.mlp };
  return new ParallelLayer('GPTJBlock', children, { ...parts, addsFirst: 'sum' });
}

function model(settings: GptjConfig): Decoder {
  const { vocabSize, hiddenSize, numLayers, numHeads, headDim, rotaryDim, maxPositionEmbeddings } = settings;
  const type = { type: 'default', theta: 10000, partialRotaryFactor: rotaryDim / headDim } as const;
  const rope = new Rope('', type, { rotaryDim, maxPositionEmbeddings, interleaved: true });
  const embedding = new Embedding(vocabSize, hiddenSize);
  const layers = new ModuleList(repeated(numLayers, () => block(settings, rope)));
  const norm = new LayerNorm(hiddenSize, settings.layerNormEps);
  const children = { wte: embedding, drop: new Place('Dropout'), h: layers, ln_f: norm };
  return new Decoder('GPTJModel', children, {
    vocabSize,
    maxContext: maxPositionEmbeddings,
    numKvHeads: numHeads,
    headDim,
    embed: (pass) => embedding.forward(pass.inputs.tokenIds!, pass.dtype),
    layers,
    norm,
    tables: [rope],
  });
}

export const gptj = architecture({
  config,
  heads: {
    causalLM: (settings) =>
      new CausalHead('GPTJForCausalLM', 'transformer', model(settings), settings.hiddenSize, { bias: true }),
    base: model,
  },
  noSplit: ['GPTJBlock'],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'transformer',
  ignoredTensors: [/\.attn\.(bias|masked_bias)$/],
  tied: { 'lm_head.weight': 'transformer.wte.weight' },
});
