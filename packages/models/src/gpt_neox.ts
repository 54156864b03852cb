// GPT-NeoX and Pythia (Black et al. 2022, arXiv 2204.06745; transformers models/gpt_neox): decoder with layer norms,
// attention and MLP side by side on the same input; q, k and v of a head lie together; a part of each head is rotated.
import {
  defineModel,
  isPlainObject,
  maxContext,
  readRope,
  ROPE_KEYS,
  ROPE_THETA,
  schema,
  type JsonObject,
  type RopeConfig,
} from '@q/config';
import { add, checkFinite, type QkvLayout, type Tensor } from '@q/tensor';
import { architecture } from './architecture.js';
import type { InputName, Model, StateSpec } from './model.js';
import { attend } from './nn/attention.js';
import { activationPlace, Embedding, LayerNorm, Place } from './nn/layers.js';
import { Linear } from './nn/linear.js';
import { Module, ModuleList } from './nn/module.js';
import { Rope } from './nn/rope.js';
import { runLayers } from './nn/run-layers.js';
import type { Pass } from './pass/pass.js';
import { activation, type Activation } from './shared/activation.js';
import { CausalHead } from './shared/causal-head.js';
import { interleavedQkv } from './shared/interleaved-qkv.js';
import { assertPlausible, headDimOf, oneOf, size } from './shared/sizes.js';

export interface GptNeoxConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly headDim: number;
  readonly maxPositionEmbeddings: number;
  readonly layerNormEps: number;
  readonly hiddenAct: Activation;
  /** Bias of the projections of attention; those of the MLP always have one. */
  readonly attentionBias: boolean;
  /** Attention and MLP both read the input of the layer, else the MLP reads what attention leaves. */
  readonly parallelResidual: boolean;
  readonly tieWordEmbeddings: boolean;
  readonly rope: RopeConfig;
}

const { flag, nullable, orElse, realIn, real } = schema;

const share = nullable(real.gt(0, { error: 'must be in (0, 1]' }).max(1, { error: 'must be in (0, 1]' }));

const config = defineModel({
  modelType: 'gpt_neox',
  shape: {
    vocab_size: orElse(size.vocab, 50432),
    hidden_size: orElse(size.hidden, 6144),
    num_hidden_layers: orElse(size.layers, 44),
    num_attention_heads: orElse(size.heads, 64),
    intermediate_size: orElse(size.intermediate, 24576),
    hidden_act: orElse(activation, 'gelu'),
    max_position_embeddings: orElse(size.positions, 2048),
    layer_norm_eps: orElse(size.normEps, 1e-5),
    tie_word_embeddings: flag(false),
    use_parallel_residual: flag(true),
    attention_bias: flag(true),
    // Spellings of transformers 4, and those that its last versions wrote beside them.
    rotary_emb_base: nullable(realIn(ROPE_THETA)),
    rope_theta: nullable(realIn(ROPE_THETA)),
    rotary_pct: share,
    partial_rotary_factor: share,
  },
  alsoReads: ROPE_KEYS,
  expected: [
    'vocab_size',
    'hidden_size',
    'num_hidden_layers',
    'num_attention_heads',
    'intermediate_size',
    'max_position_embeddings',
  ],
  tokenIds: { bos: 0, eos: 2 },
  read: (keys, raw, context): GptNeoxConfig => {
    const { hidden_size: hiddenSize, num_hidden_layers: numLayers, intermediate_size: intermediateSize } = keys;
    const { op } = context;
    const headDim = headDimOf(op, ['num_attention_heads', keys.num_attention_heads], ['hidden_size', hiddenSize]);
    const parameters = 2 * hiddenSize * (keys.vocab_size + numLayers * (2 * hiddenSize + intermediateSize));
    assertPlausible(op, parameters, { hidden_size: hiddenSize, num_hidden_layers: numLayers });
    const maxPositionEmbeddings = keys.max_position_embeddings;
    return {
      vocabSize: keys.vocab_size,
      hiddenSize,
      intermediateSize,
      numLayers,
      numHeads: keys.num_attention_heads,
      headDim,
      maxPositionEmbeddings,
      layerNormEps: keys.layer_norm_eps,
      hiddenAct: keys.hidden_act,
      attentionBias: keys.attention_bias,
      parallelResidual: keys.use_parallel_residual,
      tieWordEmbeddings: keys.tie_word_embeddings,
      rope: readRope(usualSpelling(op, keys, raw), { ...context, headDim, maxPositionEmbeddings }),
    };
  },
});

interface RotaryKeys {
  readonly rotary_emb_base: number | null;
  readonly rope_theta: number | null;
  readonly rotary_pct: number | null;
  readonly partial_rotary_factor: number | null;
}

/** The file with base and share of the rotation under their usual names. @throws ConfigError where two differ */
function usualSpelling(op: string, keys: RotaryKeys, raw: JsonObject): JsonObject {
  const current = isPlainObject(raw.rope_parameters) ? raw.rope_parameters : {};
  const inside = (key: string): number | null => (typeof current[key] === 'number' ? current[key] : null);
  const { rotary_emb_base, rope_theta, rotary_pct, partial_rotary_factor } = keys;
  const bases = { rotary_emb_base, rope_theta, 'rope_parameters.rope_theta': inside('rope_theta') };
  const place = 'rope_parameters.partial_rotary_factor';
  const shares = { rotary_pct, partial_rotary_factor, [place]: inside('partial_rotary_factor') };
  return { ...raw, rope_theta: oneOf(op, bases, 10000), partial_rotary_factor: oneOf(op, shares, 0.25) };
}

class GptNeoxAttention extends Module {
  readonly className = 'GPTNeoXAttention';
  readonly qkv: Linear;
  readonly dense: Linear;
  readonly layout: QkvLayout;

  constructor(
    { hiddenSize, numHeads, headDim, attentionBias: bias }: GptNeoxConfig,
    private readonly rope: Rope,
  ) {
    super();
    this.layout = interleavedQkv(numHeads, headDim);
    this.qkv = this.child('query_key_value', new Linear(hiddenSize, 3 * hiddenSize, { bias }));
    this.dense = this.child('dense', new Linear(hiddenSize, hiddenSize, { bias }));
  }

  // x, residual [T, C] → attention(x) (+ residual)
  forward(x: Tensor, index: number, pass: Pass, residual?: Tensor): Tensor {
    const qkv = this.qkv.forward(x); // [T, H · 3 D]
    const mixed = attend(qkv, index, pass, this.layout, { rope: this.rope.in(pass) }); // [T, C]
    return this.dense.forward(mixed, { residual });
  }
}

class GptNeoxMlp extends Module {
  readonly className = 'GPTNeoXMLP';
  readonly up: Linear;
  readonly down: Linear;
  private readonly activation: Activation;

  constructor({ hiddenSize, intermediateSize, hiddenAct }: GptNeoxConfig) {
    super();
    this.activation = hiddenAct;
    this.up = this.child('dense_h_to_4h', new Linear(hiddenSize, intermediateSize, { bias: true }));
    this.down = this.child('dense_4h_to_h', new Linear(intermediateSize, hiddenSize, { bias: true }));
    this.child('act', activationPlace(hiddenAct));
  }

  // x, residual [T, C] → down(act(up x)) + residual
  forward(x: Tensor, residual: Tensor): Tensor {
    return this.down.forward(this.up.forward(x, { activation: this.activation }), { residual });
  }
}

class GptNeoxLayer extends Module {
  readonly className = 'GPTNeoXLayer';
  readonly attentionNorm: LayerNorm;
  readonly mlpNorm: LayerNorm;
  readonly attention: GptNeoxAttention;
  readonly mlp: GptNeoxMlp;
  private readonly parallel: boolean;

  constructor(settings: GptNeoxConfig, rope: Rope) {
    super();
    const { hiddenSize, layerNormEps } = settings;
    this.parallel = settings.parallelResidual;
    this.attentionNorm = this.child('input_layernorm', new LayerNorm(hiddenSize, layerNormEps));
    this.mlpNorm = this.child('post_attention_layernorm', new LayerNorm(hiddenSize, layerNormEps));
    this.child('post_attention_dropout', new Place('Dropout'));
    this.child('post_mlp_dropout', new Place('Dropout'));
    this.attention = this.child('attention', new GptNeoxAttention(settings, rope));
    this.mlp = this.child('mlp', new GptNeoxMlp(settings));
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    const normed = this.attentionNorm.forward(x);
    if (this.parallel) {
      const mixed = this.attention.forward(normed, index, pass);
      return add(this.mlp.forward(this.mlpNorm.forward(x), mixed), x); // in Python's order: (mlp + attention) + x
    }
    const h = this.attention.forward(normed, index, pass, x);
    return this.mlp.forward(this.mlpNorm.forward(h), h);
  }
}

/** The decoder without a head. */
export class GptNeoxModel extends Module implements Model {
  readonly className = 'GPTNeoXModel';
  readonly embedding: Embedding;
  readonly layers: readonly GptNeoxLayer[];
  readonly norm: LayerNorm;
  readonly vocabSize: number;
  readonly maxContext: number;
  readonly state: readonly StateSpec[];
  readonly inputs: readonly InputName[] = ['tokenIds', 'positionIds'];

  constructor(settings: GptNeoxConfig) {
    super();
    const { vocabSize, hiddenSize, numLayers, numHeads: numKvHeads, headDim, maxPositionEmbeddings } = settings;
    const rotaryDim = Math.floor(headDim * settings.rope.partialRotaryFactor);
    const rope = new Rope('GPTNeoXRotaryEmbedding', settings.rope, { rotaryDim, maxPositionEmbeddings });
    this.vocabSize = vocabSize;
    this.maxContext = maxContext(settings);
    this.embedding = this.child('embed_in', new Embedding(vocabSize, hiddenSize));
    this.child('emb_dropout', new Place('Dropout'));
    const layers = Array.from({ length: numLayers }, () => new GptNeoxLayer(settings, rope));
    this.layers = this.child('layers', new ModuleList(layers)).items;
    this.norm = this.child('final_layer_norm', new LayerNorm(hiddenSize, settings.layerNormEps));
    this.child('rotary_emb', rope);
    this.state = this.layers.map((owner) => ({ kind: 'kv', owner, numKvHeads, headDim }));
  }

  forward(pass: Pass): Tensor {
    const embedded = checkFinite(this.embedding.forward(pass.inputs.tokenIds!, pass.dtype), 'embed_in');
    const x = runLayers(this.layers, embedded, pass, 'layers', (layer, h, i) => layer.forward(h, i, pass));
    return checkFinite(this.norm.forward(x), 'final_layer_norm');
  }
}

export const gptNeox = architecture({
  config,
  heads: {
    causalLM: (settings) =>
      new CausalHead('GPTNeoXForCausalLM', 'gpt_neox', new GptNeoxModel(settings), settings.hiddenSize),
    base: (settings) => new GptNeoxModel(settings),
  },
  noSplit: ['GPTNeoXLayer'],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  basePrefix: 'gpt_neox',
  checkpoint: (name) => (name === 'lm_head.weight' ? [{ name: 'embed_out.weight' }, { name }] : undefined),
  ignoredTensors: [/\.attention\.(bias|masked_bias)$/, /\.rotary_emb\.inv_freq$/],
  tied: { 'lm_head.weight': 'gpt_neox.embed_in.weight' },
});
