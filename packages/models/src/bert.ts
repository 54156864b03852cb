// BERT (Devlin et al. 2018, arXiv 1810.04805; transformers models/bert): an encoder. Tokens, positions and the text of
// a pair are embedded and added; attention sees both sides; layer norms stand behind each part; the first token is
// pooled.
import { defineModel, schema, type JsonObject } from '@q/config';
import { add, checkFinite, packedQkv, selectRows, type QkvLayout, type Tensor } from '@q/tensor';
import { architecture, type HasModule } from './architecture.js';
import type { InputName, Model, StateSpec } from './model.js';
import { attend } from './nn/attention.js';
import { activationPlace, Embedding, LayerNorm, LearnedPositions, Place } from './nn/layers.js';
import { forwardTogether, Linear } from './nn/linear.js';
import { Module, ModuleList } from './nn/module.js';
import { runLayers } from './nn/run-layers.js';
import type { Pass } from './pass/pass.js';
import { activation, type Activation } from './shared/activation.js';
import { assertPlausible, headDimOf, size } from './shared/sizes.js';

export interface BertConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly intermediateSize: number;
  readonly hiddenAct: Activation;
  readonly maxPositionEmbeddings: number;
  /** Kinds of token types. */
  readonly typeVocabSize: number;
  readonly layerNormEps: number;
  readonly tieWordEmbeddings: boolean;
}

const { flag, orElse } = schema;

const config = defineModel({
  modelType: 'bert',
  shape: {
    vocab_size: orElse(size.vocab, 30522),
    hidden_size: orElse(size.hidden, 768),
    num_hidden_layers: orElse(size.layers, 12),
    num_attention_heads: orElse(size.heads, 12),
    intermediate_size: orElse(size.intermediate, 3072),
    hidden_act: orElse(activation, 'gelu'),
    max_position_embeddings: orElse(size.positions, 512),
    type_vocab_size: orElse(size.vocab, 2),
    layer_norm_eps: orElse(size.normEps, 1e-12),
    tie_word_embeddings: flag(true),
  },
  expected: ['vocab_size', 'hidden_size', 'num_hidden_layers', 'num_attention_heads', 'intermediate_size'],
  neutral: { position_embedding_type: ['absolute'] },
  read: (keys, _raw: JsonObject, { op }): BertConfig => {
    const { hidden_size: hiddenSize, num_hidden_layers: numLayers, intermediate_size: intermediateSize } = keys;
    headDimOf(op, ['num_attention_heads', keys.num_attention_heads], ['hidden_size', hiddenSize]);
    const tables = keys.vocab_size + keys.max_position_embeddings + keys.type_vocab_size;
    const layer = 2 * hiddenSize * (2 * hiddenSize + intermediateSize);
    assertPlausible(op, hiddenSize * tables + numLayers * layer, {
      hidden_size: hiddenSize,
      num_hidden_layers: numLayers,
      intermediate_size: intermediateSize,
    });
    return {
      vocabSize: keys.vocab_size,
      hiddenSize,
      numLayers,
      numHeads: keys.num_attention_heads,
      intermediateSize,
      hiddenAct: keys.hidden_act,
      maxPositionEmbeddings: keys.max_position_embeddings,
      typeVocabSize: keys.type_vocab_size,
      layerNormEps: keys.layer_norm_eps,
      tieWordEmbeddings: keys.tie_word_embeddings,
    };
  },
});

class BertEmbeddings extends Module {
  readonly className = 'BertEmbeddings';
  readonly words: Embedding;
  readonly positions: LearnedPositions;
  readonly types: Embedding;
  readonly norm: LayerNorm;

  constructor({ vocabSize, hiddenSize, maxPositionEmbeddings, typeVocabSize, layerNormEps }: BertConfig) {
    super();
    this.words = this.child('word_embeddings', new Embedding(vocabSize, hiddenSize));
    this.positions = this.child('position_embeddings', new LearnedPositions(maxPositionEmbeddings, hiddenSize));
    this.types = this.child('token_type_embeddings', new Embedding(typeVocabSize, hiddenSize));
    this.norm = this.child('LayerNorm', new LayerNorm(hiddenSize, layerNormEps));
    this.child('dropout', new Place('Dropout'));
    for (const name of ['position_ids', 'token_type_ids'])
      this.buffers.set(name, { shape: [1, maxPositionEmbeddings], dtype: 'int64' });
  }

  // ids, types [T] → [T, C]
  forward({ backend, dtype, rows, inputs }: Pass): Tensor {
    const types = inputs.tokenTypeIds ?? backend.tensor(new Int32Array(rows.tokens), [rows.tokens], 'i32');
    const words = add(this.words.forward(inputs.tokenIds!, dtype), this.types.forward(types, dtype));
    return this.norm.forward(add(words, this.positions.forward(rows.positions, dtype)));
  }
}

class BertSelfAttention extends Module {
  readonly className = 'BertSelfAttention';
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly layout: QkvLayout;

  constructor({ hiddenSize, numHeads }: BertConfig) {
    super();
    this.layout = packedQkv(numHeads, numHeads, hiddenSize / numHeads);
    const linear = () => new Linear(hiddenSize, hiddenSize, { bias: true });
    this.query = this.child('query', linear());
    this.key = this.child('key', linear());
    this.value = this.child('value', linear());
    this.child('dropout', new Place('Dropout'));
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    const qkv = forwardTogether([this.query, this.key, this.value], x); // [T, 3 C]
    return attend(qkv, index, pass, this.layout, { causal: false });
  }
}

/** The end of a part: norm(residual + dense x). */
class BertOutput extends Module {
  readonly dense: Linear;
  readonly norm: LayerNorm;

  constructor(
    readonly className: string,
    inFeatures: number,
    { hiddenSize, layerNormEps }: BertConfig,
  ) {
    super();
    this.dense = this.child('dense', new Linear(inFeatures, hiddenSize, { bias: true }));
    this.norm = this.child('LayerNorm', new LayerNorm(hiddenSize, layerNormEps));
    this.child('dropout', new Place('Dropout'));
  }

  // x [T, inFeatures], residual [T, C] → [T, C]
  forward(x: Tensor, residual: Tensor): Tensor {
    return this.norm.forward(this.dense.forward(x, { residual }));
  }
}

class BertAttention extends Module {
  readonly className = 'BertAttention';
  readonly self: BertSelfAttention;
  readonly output: BertOutput;

  constructor(settings: BertConfig) {
    super();
    this.self = this.child('self', new BertSelfAttention(settings));
    this.output = this.child('output', new BertOutput('BertSelfOutput', settings.hiddenSize, settings));
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    return this.output.forward(this.self.forward(x, index, pass), x);
  }
}

class BertIntermediate extends Module {
  readonly className = 'BertIntermediate';
  readonly dense: Linear;
  private readonly activation: Activation;

  constructor({ hiddenSize, intermediateSize, hiddenAct }: BertConfig) {
    super();
    this.activation = hiddenAct;
    this.dense = this.child('dense', new Linear(hiddenSize, intermediateSize, { bias: true }));
    this.child('intermediate_act_fn', activationPlace(hiddenAct));
  }

  // x [T, C] → [T, I]
  forward(x: Tensor): Tensor {
    return this.dense.forward(x, { activation: this.activation });
  }
}

class BertLayer extends Module {
  readonly className = 'BertLayer';
  readonly attention: BertAttention;
  readonly intermediate: BertIntermediate;
  readonly output: BertOutput;

  constructor(settings: BertConfig) {
    super();
    this.attention = this.child('attention', new BertAttention(settings));
    this.intermediate = this.child('intermediate', new BertIntermediate(settings));
    this.output = this.child('output', new BertOutput('BertOutput', settings.intermediateSize, settings));
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    const h = this.attention.forward(x, index, pass);
    return this.output.forward(this.intermediate.forward(h), h);
  }
}

class BertEncoder extends Module {
  readonly className = 'BertEncoder';
  readonly layers: readonly BertLayer[];

  constructor(settings: BertConfig) {
    super();
    const layers = Array.from({ length: settings.numLayers }, () => new BertLayer(settings));
    this.layers = this.child('layer', new ModuleList(layers)).items;
  }
}

class BertPooler extends Module {
  readonly className = 'BertPooler';
  readonly dense: Linear;

  constructor({ hiddenSize }: BertConfig) {
    super();
    this.dense = this.child('dense', new Linear(hiddenSize, hiddenSize, { bias: true }));
    this.child('activation', new Place('Tanh'));
  }

  // hidden [T, C] → [B, C]
  forward(hidden: Tensor, { rows }: Pass): Tensor {
    const first = selectRows(hidden, rows.sequenceStarts.slice(0, rows.sequences));
    return checkFinite(this.dense.forward(first, { activation: 'tanh' }), 'pooler');
  }
}

/** The encoder with its pooling layer, which files of models with a head for tokens lack. */
export class BertModel extends Module implements Model {
  readonly className = 'BertModel';
  readonly embeddings: BertEmbeddings;
  readonly encoder: BertEncoder;
  readonly pooler: BertPooler | undefined;
  readonly vocabSize: number;
  readonly maxContext: number;
  readonly tokenTypes: number;
  readonly state: readonly StateSpec[] = [];
  readonly inputs: readonly InputName[] = ['tokenIds', 'tokenTypeIds', 'positionIds'];

  constructor(settings: BertConfig, has: HasModule) {
    super();
    this.vocabSize = settings.vocabSize;
    this.maxContext = settings.maxPositionEmbeddings;
    this.tokenTypes = settings.typeVocabSize;
    this.embeddings = this.child('embeddings', new BertEmbeddings(settings));
    this.encoder = this.child('encoder', new BertEncoder(settings));
    if (has('pooler')) this.pooler = this.child('pooler', new BertPooler(settings));
  }

  forward(pass: Pass): Tensor {
    const embedded = checkFinite(this.embeddings.forward(pass), 'embeddings');
    return runLayers(this.encoder.layers, embedded, pass, 'encoder.layer', (layer, h, i) => layer.forward(h, i, pass));
  }
}

export const bert = architecture({
  config,
  heads: { base: (settings, has) => new BertModel(settings, has) },
  noSplit: ['BertEmbeddings', 'BertLayer'],
  keepDense: [],
  outputEmbeddings: '',
  basePrefix: 'bert',
  optionalModules: ['pooler'],
  ignoredTensors: [/(^|\.)position_ids$/, /(^|\.)token_type_ids$/],
  tied: {},
});
