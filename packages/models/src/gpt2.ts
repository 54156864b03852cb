// GPT-2 (Radford et al. 2019; transformers models/gpt2): pre-norm decoder with layer norms, learned positions, biases
// everywhere and one matrix for q, k and v. Its linear layers are Conv1D: files have their weights [in, out].
import { defineModel, schema, type JsonObject } from '@q/config';
import { add, checkFinite, packedQkv, type QkvLayout, type Tensor } from '@q/tensor';
import { architecture } from './architecture.js';
import type { InputName, Model, StateSpec } from './model.js';
import { attend } from './nn/attention.js';
import { activationPlace, Embedding, LayerNorm, LearnedPositions, Place } from './nn/layers.js';
import { Linear } from './nn/linear.js';
import { Module, ModuleList } from './nn/module.js';
import { runLayers } from './nn/run-layers.js';
import type { Pass } from './pass/pass.js';
import { activation, type Activation } from './shared/activation.js';
import { CausalHead } from './shared/causal-head.js';
import { assertPlausible, headDimOf, oneOf, size } from './shared/sizes.js';

export interface Gpt2Config {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  readonly maxPositionEmbeddings: number;
  readonly layerNormEps: number;
  readonly activation: Activation;
  /** Scores are divided by the root of the head's size. */
  readonly scaleAttention: boolean;
  /** Scores of layer i are divided by i + 1 as well. */
  readonly scaleByLayer: boolean;
  readonly tieWordEmbeddings: boolean;
}

const { flag, nullable, orElse } = schema;

const config = defineModel({
  modelType: 'gpt2',
  shape: {
    vocab_size: orElse(size.vocab, 50257),
    n_positions: nullable(size.positions),
    max_position_embeddings: nullable(size.positions),
    n_embd: nullable(size.hidden),
    hidden_size: nullable(size.hidden),
    n_layer: nullable(size.layers),
    num_hidden_layers: nullable(size.layers),
    n_head: nullable(size.heads),
    num_attention_heads: nullable(size.heads),
    n_inner: nullable(size.intermediate),
    activation_function: orElse(activation, 'gelu_tanh'),
    layer_norm_epsilon: orElse(size.normEps, 1e-5),
    scale_attn_weights: flag(true),
    scale_attn_by_inverse_layer_idx: flag(false),
    tie_word_embeddings: flag(true),
  },
  alsoReads: [
    // Scores in float32, which is how they are computed here; the class does so in its eager attention alone.
    'reorder_and_upcast_attn',
    // Of the head for multiple choice.
    'summary_activation',
    'summary_first_dropout',
    'summary_proj_to_labels',
    'summary_type',
    'summary_use_proj',
    // Left by the first published files; equal to n_positions.
    'n_ctx',
  ],
  tokenIds: { bos: 50256, eos: 50256 },
  read: (keys, _raw: JsonObject, { op }): Gpt2Config => {
    const hiddenSize = oneOf(op, { n_embd: keys.n_embd, hidden_size: keys.hidden_size }, 768);
    const numLayers = oneOf(op, { n_layer: keys.n_layer, num_hidden_layers: keys.num_hidden_layers }, 12);
    const numHeads = oneOf(op, { n_head: keys.n_head, num_attention_heads: keys.num_attention_heads }, 12);
    const { n_positions, max_position_embeddings } = keys;
    const maxPositionEmbeddings = oneOf(op, { n_positions, max_position_embeddings }, 1024);
    const headDim = headDimOf(op, ['n_head', numHeads], ['n_embd', hiddenSize]);
    const intermediateSize = keys.n_inner ?? 4 * hiddenSize;
    const layer = 2 * hiddenSize * (2 * hiddenSize + intermediateSize);
    const parameters = hiddenSize * (keys.vocab_size + maxPositionEmbeddings) + numLayers * layer;
    assertPlausible(op, parameters, { n_embd: hiddenSize, n_layer: numLayers, n_inner: intermediateSize });
    return {
      vocabSize: keys.vocab_size,
      hiddenSize,
      numLayers,
      numHeads,
      headDim,
      intermediateSize,
      maxPositionEmbeddings,
      layerNormEps: keys.layer_norm_epsilon,
      activation: keys.activation_function,
      scaleAttention: keys.scale_attn_weights,
      scaleByLayer: keys.scale_attn_by_inverse_layer_idx,
      tieWordEmbeddings: keys.tie_word_embeddings,
    };
  },
});

const conv1d = (inFeatures: number, outFeatures: number) =>
  new Linear(inFeatures, outFeatures, { bias: true, className: 'Conv1D' });

class Gpt2Attention extends Module {
  readonly className = 'GPT2Attention';
  readonly qkv: Linear;
  readonly out: Linear;
  readonly layout: QkvLayout;
  readonly scale: number;

  constructor({ hiddenSize, numHeads, headDim, scaleAttention, scaleByLayer }: Gpt2Config, index: number) {
    super();
    this.layout = packedQkv(numHeads, numHeads, headDim);
    this.scale = (scaleAttention ? headDim ** -0.5 : 1) / (scaleByLayer ? index + 1 : 1);
    this.qkv = this.child('c_attn', conv1d(hiddenSize, 3 * hiddenSize));
    this.out = this.child('c_proj', conv1d(hiddenSize, hiddenSize));
    this.child('attn_dropout', new Place('Dropout'));
    this.child('resid_dropout', new Place('Dropout'));
  }

  // x, residual [T, C] → attention(x) + residual
  forward(x: Tensor, residual: Tensor, index: number, pass: Pass): Tensor {
    const qkv = this.qkv.forward(x); // [T, 3 C]
    return this.out.forward(attend(qkv, index, pass, this.layout, { scale: this.scale }), { residual });
  }
}

class Gpt2Mlp extends Module {
  readonly className = 'GPT2MLP';
  readonly up: Linear;
  readonly down: Linear;
  private readonly activation: Activation;

  constructor({ hiddenSize, intermediateSize, activation: name }: Gpt2Config) {
    super();
    this.activation = name;
    this.up = this.child('c_fc', conv1d(hiddenSize, intermediateSize));
    this.down = this.child('c_proj', conv1d(intermediateSize, hiddenSize));
    this.child('act', activationPlace(name));
    this.child('dropout', new Place('Dropout'));
  }

  // x, residual [T, C] → down(act(up x)) + residual
  forward(x: Tensor, residual: Tensor): Tensor {
    return this.down.forward(this.up.forward(x, { activation: this.activation }), { residual });
  }
}

class Gpt2Block extends Module {
  readonly className = 'GPT2Block';
  readonly attentionNorm: LayerNorm;
  readonly attention: Gpt2Attention;
  readonly mlpNorm: LayerNorm;
  readonly mlp: Gpt2Mlp;

  constructor(settings: Gpt2Config, index: number) {
    super();
    const { hiddenSize, layerNormEps } = settings;
    this.attentionNorm = this.child('ln_1', new LayerNorm(hiddenSize, layerNormEps));
    this.attention = this.child('attn', new Gpt2Attention(settings, index));
    this.mlpNorm = this.child('ln_2', new LayerNorm(hiddenSize, layerNormEps));
    this.mlp = this.child('mlp', new Gpt2Mlp(settings));
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    const h = this.attention.forward(this.attentionNorm.forward(x), x, index, pass);
    return this.mlp.forward(this.mlpNorm.forward(h), h);
  }
}

/** The decoder without a head. */
export class Gpt2Model extends Module implements Model {
  readonly className = 'GPT2Model';
  readonly embedding: Embedding;
  readonly positions: LearnedPositions;
  readonly layers: readonly Gpt2Block[];
  readonly norm: LayerNorm;
  readonly vocabSize: number;
  readonly maxContext: number;
  readonly state: readonly StateSpec[];
  readonly inputs: readonly InputName[] = ['tokenIds', 'positionIds'];

  constructor(settings: Gpt2Config) {
    super();
    const { vocabSize, hiddenSize, numLayers, numHeads: numKvHeads, headDim, maxPositionEmbeddings } = settings;
    this.vocabSize = vocabSize;
    this.maxContext = maxPositionEmbeddings;
    this.embedding = this.child('wte', new Embedding(vocabSize, hiddenSize));
    this.positions = this.child('wpe', new LearnedPositions(maxPositionEmbeddings, hiddenSize));
    this.child('drop', new Place('Dropout'));
    const layers = Array.from({ length: numLayers }, (_, index) => new Gpt2Block(settings, index));
    this.layers = this.child('h', new ModuleList(layers)).items;
    this.norm = this.child('ln_f', new LayerNorm(hiddenSize, settings.layerNormEps));
    this.state = this.layers.map((owner) => ({ kind: 'kv', owner, numKvHeads, headDim }));
  }

  // ids [T] → [T, C]
  forward(pass: Pass): Tensor {
    const tokens = this.embedding.forward(pass.inputs.tokenIds!, pass.dtype);
    const embedded = add(tokens, this.positions.forward(pass.rows.positions, pass.dtype));
    const x = runLayers(this.layers, checkFinite(embedded, this.pathOf('wte')), pass, this.pathOf('h'), (layer, h, i) =>
      layer.forward(h, i, pass),
    );
    return checkFinite(this.norm.forward(x), this.pathOf('ln_f'));
  }
}

const conv1dWeight = /\.(c_attn|c_proj|c_fc)\.weight$/;

export const gpt2 = architecture({
  config,
  heads: {
    causalLM: (settings) =>
      new CausalHead('GPT2LMHeadModel', 'transformer', new Gpt2Model(settings), settings.hiddenSize),
    base: (settings) => new Gpt2Model(settings),
  },
  noSplit: ['GPT2Block'],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'transformer',
  checkpoint: (name) => (conv1dWeight.test(name) ? [{ name, transposed: true }] : undefined),
  ignoredTensors: [/(^|\.)attn\.(bias|masked_bias)$/],
  tied: { 'lm_head.weight': 'transformer.wte.weight' },
});
