// OPT (Zhang et al. 2022, arXiv 2205.01068; transformers models/opt): decoder with learned positions that begin at row
// 2, layer norms before or (350m) behind each part, biases everywhere, ReLU; narrower token vectors in the 350m.
import { defineModel, schema, type JsonObject } from '@q/config';
import { add, checkFinite, packedQkv, type QkvLayout, type Tensor } from '@q/tensor';
import { architecture } from './architecture.js';
import type { InputName, Model, StateSpec } from './model.js';
import { attend } from './nn/attention.js';
import { activationPlace, Embedding, LayerNorm, LearnedPositions } from './nn/layers.js';
import { forwardTogether, Linear } from './nn/linear.js';
import { Module, ModuleList } from './nn/module.js';
import { runLayers } from './nn/run-layers.js';
import type { Pass } from './pass/pass.js';
import { activation, type Activation } from './shared/activation.js';
import { CausalHead } from './shared/causal-head.js';
import { assertPlausible, headDimOf, size } from './shared/sizes.js';

export interface OptConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly ffnDim: number;
  readonly maxPositionEmbeddings: number;
  /** Layer norms stand before attention and MLP, else behind them. */
  readonly normBefore: boolean;
  readonly finalNorm: boolean;
  /** Width of the token vectors. */
  readonly embeddingSize: number;
  readonly activation: Activation;
  readonly bias: boolean;
  /** The layer norms have scale and shift. */
  readonly affineNorm: boolean;
  readonly tieWordEmbeddings: boolean;
}

const { flag, nullable, orElse } = schema;

const config = defineModel({
  modelType: 'opt',
  shape: {
    vocab_size: orElse(size.vocab, 50272),
    hidden_size: orElse(size.hidden, 768),
    num_hidden_layers: orElse(size.layers, 12),
    ffn_dim: orElse(size.intermediate, 3072),
    max_position_embeddings: orElse(size.positions, 2048),
    num_attention_heads: orElse(size.heads, 12),
    do_layer_norm_before: flag(true),
    _remove_final_layer_norm: flag(false),
    word_embed_proj_dim: nullable(size.hidden),
    activation_function: orElse(activation, 'relu'),
    enable_bias: flag(true),
    layer_norm_elementwise_affine: flag(true),
    tie_word_embeddings: flag(true),
  },
  expected: ['vocab_size', 'hidden_size', 'num_hidden_layers', 'ffn_dim', 'num_attention_heads'],
  tokenIds: { bos: 2, eos: 2 },
  read: (keys, _raw: JsonObject, { op }): OptConfig => {
    const { hidden_size: hiddenSize, num_hidden_layers: numLayers, ffn_dim: ffnDim } = keys;
    headDimOf(op, ['num_attention_heads', keys.num_attention_heads], ['hidden_size', hiddenSize]);
    const layer = 2 * hiddenSize * (2 * hiddenSize + ffnDim);
    const parameters = hiddenSize * (keys.vocab_size + keys.max_position_embeddings) + numLayers * layer;
    assertPlausible(op, parameters, { hidden_size: hiddenSize, num_hidden_layers: numLayers, ffn_dim: ffnDim });
    const embeddingSize = keys.word_embed_proj_dim ?? hiddenSize;
    return {
      vocabSize: keys.vocab_size,
      hiddenSize,
      numLayers,
      numHeads: keys.num_attention_heads,
      ffnDim,
      maxPositionEmbeddings: keys.max_position_embeddings,
      normBefore: keys.do_layer_norm_before,
      finalNorm: keys.do_layer_norm_before && !keys._remove_final_layer_norm,
      embeddingSize,
      activation: keys.activation_function,
      bias: keys.enable_bias,
      affineNorm: keys.layer_norm_elementwise_affine,
      tieWordEmbeddings: keys.tie_word_embeddings,
    };
  },
});

const normOf = ({ hiddenSize, affineNorm }: OptConfig) => new LayerNorm(hiddenSize, 1e-5, { affine: affineNorm });

class OptAttention extends Module {
  readonly className = 'OPTAttention';
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly out: Linear;
  readonly layout: QkvLayout;

  constructor({ hiddenSize, numHeads, bias }: OptConfig) {
    super();
    this.layout = packedQkv(numHeads, numHeads, hiddenSize / numHeads);
    const linear = () => new Linear(hiddenSize, hiddenSize, { bias });
    this.k = this.child('k_proj', linear());
    this.v = this.child('v_proj', linear());
    this.q = this.child('q_proj', linear());
    this.out = this.child('out_proj', linear());
  }

  // x, residual [T, C] → residual + attention(x)
  forward(x: Tensor, residual: Tensor, index: number, pass: Pass): Tensor {
    const qkv = forwardTogether([this.q, this.k, this.v], x); // [T, 3 C]
    return this.out.forward(attend(qkv, index, pass, this.layout), { residual });
  }
}

class OptDecoderLayer extends Module {
  readonly className = 'OPTDecoderLayer';
  readonly attention: OptAttention;
  readonly attentionNorm: LayerNorm;
  readonly up: Linear;
  readonly down: Linear;
  readonly mlpNorm: LayerNorm;

  constructor(private readonly settings: OptConfig) {
    super();
    const { hiddenSize, ffnDim, bias } = settings;
    this.attention = this.child('self_attn', new OptAttention(settings));
    this.child('activation_fn', activationPlace(settings.activation));
    this.attentionNorm = this.child('self_attn_layer_norm', normOf(settings));
    this.up = this.child('fc1', new Linear(hiddenSize, ffnDim, { bias }));
    this.down = this.child('fc2', new Linear(ffnDim, hiddenSize, { bias }));
    this.mlpNorm = this.child('final_layer_norm', normOf(settings));
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    if (this.settings.normBefore) {
      const h = this.attention.forward(this.attentionNorm.forward(x), x, index, pass);
      return this.#mlp(this.mlpNorm.forward(h), h);
    }
    const h = this.attentionNorm.forward(this.attention.forward(x, x, index, pass));
    return this.mlpNorm.forward(this.#mlp(h, h));
  }

  // x, residual [T, C] → residual + down(act(up x))
  #mlp(x: Tensor, residual: Tensor): Tensor {
    return this.down.forward(this.up.forward(x, { activation: this.settings.activation }), { residual });
  }
}

class OptDecoder extends Module {
  readonly className = 'OPTDecoder';
  readonly embedding: Embedding;
  readonly positions: LearnedPositions;
  readonly projectOut: Linear | undefined;
  readonly projectIn: Linear | undefined;
  readonly norm: LayerNorm | undefined;
  readonly layers: readonly OptDecoderLayer[];

  constructor(settings: OptConfig) {
    super();
    const { vocabSize, hiddenSize, embeddingSize, maxPositionEmbeddings, numLayers } = settings;
    this.embedding = this.child('embed_tokens', new Embedding(vocabSize, embeddingSize));
    const positions = new LearnedPositions(maxPositionEmbeddings, hiddenSize, 2, 'OPTLearnedPositionalEmbedding');
    this.positions = this.child('embed_positions', positions);
    if (embeddingSize !== hiddenSize) {
      this.projectOut = this.child('project_out', new Linear(hiddenSize, embeddingSize));
      this.projectIn = this.child('project_in', new Linear(embeddingSize, hiddenSize));
    }
    if (settings.finalNorm) this.norm = this.child('final_layer_norm', normOf(settings));
    const layers = Array.from({ length: numLayers }, () => new OptDecoderLayer(settings));
    this.layers = this.child('layers', new ModuleList(layers)).items;
  }

  // ids [T] → [T, E]
  forward(pass: Pass): Tensor {
    const tokens = this.embedding.forward(pass.inputs.tokenIds!, pass.dtype);
    const projected = this.projectIn?.forward(tokens) ?? tokens;
    const embedded = add(projected, this.positions.forward(pass.rows.positions, pass.dtype));
    const x = runLayers(
      this.layers,
      checkFinite(embedded, this.pathOf('embed_tokens')),
      pass,
      this.pathOf('layers'),
      (layer, h, i) => layer.forward(h, i, pass),
    );
    const normed = this.norm?.forward(x) ?? x;
    return checkFinite(this.projectOut?.forward(normed) ?? normed, this.pathOf('final_layer_norm'));
  }
}

/** The decoder without a head. */
export class OptModel extends Module implements Model {
  readonly className = 'OPTModel';
  readonly decoder: OptDecoder;
  readonly vocabSize: number;
  readonly maxContext: number;
  readonly state: readonly StateSpec[];
  readonly inputs: readonly InputName[] = ['tokenIds', 'positionIds'];

  constructor(settings: OptConfig) {
    super();
    const { numHeads: numKvHeads, hiddenSize } = settings;
    this.vocabSize = settings.vocabSize;
    this.maxContext = settings.maxPositionEmbeddings;
    this.decoder = this.child('decoder', new OptDecoder(settings));
    const headDim = hiddenSize / numKvHeads;
    this.state = this.decoder.layers.map((owner) => ({ kind: 'kv', owner, numKvHeads, headDim }));
  }

  forward(pass: Pass): Tensor {
    return this.decoder.forward(pass);
  }
}

export const opt = architecture({
  config,
  heads: {
    causalLM: (settings) => new CausalHead('OPTForCausalLM', 'model', new OptModel(settings), settings.embeddingSize),
    base: (settings) => new OptModel(settings),
  },
  noSplit: ['OPTDecoderLayer'],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'model',
  ignoredTensors: [],
  tied: { 'lm_head.weight': 'model.decoder.embed_tokens.weight' },
});
