// BLOOM (BigScience 2022, arXiv 2211.05100; transformers models/bloom): pre-norm decoder with layer norms, one behind
// the embedding too; no positions but a bias that falls with the distance (ALiBi); q, k and v of a head lie together;
// GELU.
import { defineModel, MAX_POSITIONS, schema, type JsonObject } from '@q/config';
import { checkFinite, type QkvLayout, type Tensor } from '@q/tensor';
import { architecture } from './architecture.js';
import type { InputName, Model, StateSpec } from './model.js';
import { alibiSlopes, alibiTable } from './nn/alibi.js';
import { attend } from './nn/attention.js';
import type { Constant } from './nn/constant.js';
import { Embedding, LayerNorm, Place } from './nn/layers.js';
import { Linear } from './nn/linear.js';
import { Module, ModuleList } from './nn/module.js';
import { runLayers } from './nn/run-layers.js';
import type { Pass } from './pass/pass.js';
import { CausalHead } from './shared/causal-head.js';
import { interleavedQkv } from './shared/interleaved-qkv.js';
import { assertPlausible, headDimOf, oneOf, size } from './shared/sizes.js';

export interface BloomConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly layerNormEps: number;
  /** The residual path goes behind the layer norms instead of past them. */
  readonly residualBehindNorm: boolean;
  readonly tieWordEmbeddings: boolean;
}

const { flag, nullable, orElse } = schema;

const config = defineModel({
  modelType: 'bloom',
  shape: {
    vocab_size: orElse(size.vocab, 250880),
    hidden_size: nullable(size.hidden),
    n_embed: nullable(size.hidden),
    n_layer: nullable(size.layers),
    num_hidden_layers: nullable(size.layers),
    n_head: nullable(size.heads),
    num_attention_heads: nullable(size.heads),
    layer_norm_epsilon: orElse(size.normEps, 1e-5),
    apply_residual_connection_post_layernorm: flag(false),
    tie_word_embeddings: flag(true),
  },
  // Kept by the first published files; the Python class computes the same whatever they say.
  alsoReads: [
    'attention_softmax_in_fp32',
    'bias_dropout_fusion',
    'masked_softmax_fusion',
    'n_inner',
    'offset_alibi',
    'seq_length',
    'skip_bias_add',
    'skip_bias_add_qkv',
    'slow_but_exact',
  ],
  tokenIds: { bos: 1, eos: 2 },
  read: (keys, _raw: JsonObject, { op }): BloomConfig => {
    const hiddenSize = oneOf(op, { n_embed: keys.n_embed, hidden_size: keys.hidden_size }, 64);
    const numLayers = oneOf(op, { n_layer: keys.n_layer, num_hidden_layers: keys.num_hidden_layers }, 2);
    const numHeads = oneOf(op, { n_head: keys.n_head, num_attention_heads: keys.num_attention_heads }, 8);
    headDimOf(op, ['n_head', numHeads], ['hidden_size', hiddenSize]);
    const parameters = hiddenSize * (keys.vocab_size + 12 * numLayers * hiddenSize);
    assertPlausible(op, parameters, { hidden_size: hiddenSize, n_layer: numLayers });
    return {
      vocabSize: keys.vocab_size,
      hiddenSize,
      numLayers,
      numHeads,
      layerNormEps: keys.layer_norm_epsilon,
      residualBehindNorm: keys.apply_residual_connection_post_layernorm,
      tieWordEmbeddings: keys.tie_word_embeddings,
    };
  },
});

class BloomAttention extends Module {
  readonly className = 'BloomAttention';
  readonly qkv: Linear;
  readonly dense: Linear;
  readonly layout: QkvLayout;

  constructor(
    { hiddenSize, numHeads }: BloomConfig,
    private readonly slopes: Constant,
  ) {
    super();
    this.layout = interleavedQkv(numHeads, hiddenSize / numHeads);
    this.qkv = this.child('query_key_value', new Linear(hiddenSize, 3 * hiddenSize, { bias: true }));
    this.dense = this.child('dense', new Linear(hiddenSize, hiddenSize, { bias: true }));
    this.child('attention_dropout', new Place('Dropout'));
  }

  // x, residual [T, C] → residual + attention(x)
  forward(x: Tensor, residual: Tensor, index: number, pass: Pass): Tensor {
    const qkv = this.qkv.forward(x); // [T, H · 3 D]
    const mixed = attend(qkv, index, pass, this.layout, { alibiSlopes: this.slopes.on(pass.backend) }); // [T, C]
    return this.dense.forward(mixed, { residual });
  }
}

class BloomMlp extends Module {
  readonly className = 'BloomMLP';
  readonly up: Linear;
  readonly down: Linear;

  constructor({ hiddenSize }: BloomConfig) {
    super();
    this.up = this.child('dense_h_to_4h', new Linear(hiddenSize, 4 * hiddenSize, { bias: true }));
    this.child('gelu_impl', new Place('BloomGelu'));
    this.down = this.child('dense_4h_to_h', new Linear(4 * hiddenSize, hiddenSize, { bias: true }));
  }

  // x, residual [T, C] → residual + down(gelu(up x))
  forward(x: Tensor, residual: Tensor): Tensor {
    return this.down.forward(this.up.forward(x, { activation: 'gelu_tanh' }), { residual });
  }
}

class BloomBlock extends Module {
  readonly className = 'BloomBlock';
  readonly attentionNorm: LayerNorm;
  readonly attention: BloomAttention;
  readonly mlpNorm: LayerNorm;
  readonly mlp: BloomMlp;
  private readonly residualBehindNorm: boolean;

  constructor(settings: BloomConfig, slopes: Constant) {
    super();
    const { hiddenSize, layerNormEps, residualBehindNorm } = settings;
    this.residualBehindNorm = residualBehindNorm;
    this.attentionNorm = this.child('input_layernorm', new LayerNorm(hiddenSize, layerNormEps));
    this.attention = this.child('self_attention', new BloomAttention(settings, slopes));
    this.mlpNorm = this.child('post_attention_layernorm', new LayerNorm(hiddenSize, layerNormEps));
    this.mlp = this.child('mlp', new BloomMlp(settings));
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    const before = this.attentionNorm.forward(x);
    const h = this.attention.forward(before, this.residualBehindNorm ? before : x, index, pass);
    const between = this.mlpNorm.forward(h);
    return this.mlp.forward(between, this.residualBehindNorm ? between : h);
  }
}

/** The decoder without a head. */
export class BloomModel extends Module implements Model {
  readonly className = 'BloomModel';
  readonly embedding: Embedding;
  readonly embeddingNorm: LayerNorm;
  readonly layers: readonly BloomBlock[];
  readonly norm: LayerNorm;
  readonly vocabSize: number;
  /** The bias goes on for any distance. */
  readonly maxContext = MAX_POSITIONS;
  readonly state: readonly StateSpec[];
  readonly inputs: readonly InputName[] = ['tokenIds'];
  readonly #slopes: Constant;

  constructor(settings: BloomConfig) {
    super();
    const { vocabSize, hiddenSize, numLayers, numHeads, layerNormEps } = settings;
    this.vocabSize = vocabSize;
    this.#slopes = alibiTable(alibiSlopes(numHeads));
    this.embedding = this.child('word_embeddings', new Embedding(vocabSize, hiddenSize));
    this.embeddingNorm = this.child('word_embeddings_layernorm', new LayerNorm(hiddenSize, layerNormEps));
    const layers = Array.from({ length: numLayers }, () => new BloomBlock(settings, this.#slopes));
    this.layers = this.child('h', new ModuleList(layers)).items;
    this.norm = this.child('ln_f', new LayerNorm(hiddenSize, layerNormEps));
    const headDim = hiddenSize / numHeads;
    this.state = this.layers.map((owner) => ({ kind: 'kv', owner, numKvHeads: numHeads, headDim }));
  }

  forward(pass: Pass): Tensor {
    const embedded = this.embeddingNorm.forward(this.embedding.forward(pass.inputs.tokenIds!, pass.dtype));
    const x = runLayers(
      this.layers,
      checkFinite(embedded, this.pathOf('word_embeddings')),
      pass,
      this.pathOf('h'),
      (layer, h, i) => layer.forward(h, i, pass),
    );
    return checkFinite(this.norm.forward(x), this.pathOf('ln_f'));
  }

  override dispose(): void {
    this.#slopes.dispose();
    super.dispose();
  }
}

export const bloom = architecture({
  config,
  heads: {
    causalLM: (settings) =>
      new CausalHead('BloomForCausalLM', 'transformer', new BloomModel(settings), settings.hiddenSize),
    base: (settings) => new BloomModel(settings),
  },
  noSplit: ['BloomBlock'],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'transformer',
  ignoredTensors: [],
  tied: { 'lm_head.weight': 'transformer.word_embeddings.weight' },
});
