// Llama 1 to 3 (Touvron et al. 2023, arXiv 2302.13971; transformers models/llama): pre-norm decoder, RMS norm, rotary
// positions, grouped queries, gated SiLU. Files before grouped-query attention have no num_key_value_heads. Mistral
// adds a sliding window, Qwen 2 biases on q, k and v: both are these modules with other settings.
import { defineModel, maxContext, schema, type ModelDefinition } from '@q/config';
import { checkFinite, packedQkv, type QkvLayout, type Tensor } from '@q/tensor';
import { architecture, type Architecture } from './architecture.js';
import type { InputName, Model, StateSpec } from './model.js';
import { attend } from './nn/attention.js';
import { Embedding, RmsNorm } from './nn/layers.js';
import { forwardTogether, Linear } from './nn/linear.js';
import { Module, ModuleList } from './nn/module.js';
import { Rope } from './nn/rope.js';
import { runLayers } from './nn/run-layers.js';
import type { Pass } from './pass/pass.js';
import { CausalHead } from './shared/causal-head.js';
import {
  decoderKeys,
  decoderShape,
  expectedKeys,
  heads,
  readDecoder,
  type DecoderConfig,
} from './shared/decoder-config.js';
import { GatedMlp } from './shared/mlp.js';

const { flag, nullable } = schema;

const config = defineModel({
  modelType: 'llama',
  shape: {
    ...decoderShape({ vocab_size: 32000, intermediate_size: 11008, max_position_embeddings: 2048 }),
    num_key_value_heads: nullable(heads),
    attention_bias: flag(false),
    mlp_bias: flag(false),
  },
  alsoReads: decoderKeys,
  expected: expectedKeys,
  tokenIds: { bos: 1, eos: 2 },
  read: (keys, raw, context) =>
    readDecoder(keys, raw, context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: keys.attention_bias,
      attentionOutputBias: keys.attention_bias,
      mlpBias: keys.mlp_bias,
      slidingWindow: null,
      layerTypes: Array.from({ length: keys.num_hidden_layers }, () => 'full_attention' as const),
    }),
});

/** Config of the family and the prefix of its Python class names. */
type LlamaSettings = DecoderConfig & { readonly family: string };

class LlamaAttention extends Module {
  readonly className: string;
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  readonly layout: QkvLayout;

  constructor(
    settings: LlamaSettings,
    private readonly rope: Rope,
    private readonly window: number,
  ) {
    super();
    const { hiddenSize, numHeads, numKvHeads, headDim, attentionBias: bias, attentionOutputBias } = settings;
    this.className = `${settings.family}Attention`;
    this.layout = packedQkv(numHeads, numKvHeads, headDim);
    this.q = this.child('q_proj', new Linear(hiddenSize, numHeads * headDim, { bias }));
    this.k = this.child('k_proj', new Linear(hiddenSize, numKvHeads * headDim, { bias }));
    this.v = this.child('v_proj', new Linear(hiddenSize, numKvHeads * headDim, { bias }));
    this.o = this.child('o_proj', new Linear(numHeads * headDim, hiddenSize, { bias: attentionOutputBias }));
  }

  // x, residual [T, C] → residual + attention(x)
  forward(x: Tensor, residual: Tensor, index: number, pass: Pass): Tensor {
    const qkv = forwardTogether([this.q, this.k, this.v], x); // [T, (H + 2 Hkv) D]
    const mixed = attend(qkv, index, pass, this.layout, { window: this.window, rope: this.rope.in(pass) }); // [T, H D]
    return this.o.forward(mixed, { residual });
  }
}

class LlamaDecoderLayer extends Module {
  readonly className: string;
  readonly attention: LlamaAttention;
  readonly mlp: GatedMlp;
  readonly attentionNorm: RmsNorm;
  readonly mlpNorm: RmsNorm;

  constructor(settings: LlamaSettings, rope: Rope, window: number) {
    super();
    const norm = () => new RmsNorm(`${settings.family}RMSNorm`, settings.hiddenSize, settings.rmsNormEps);
    this.className = `${settings.family}DecoderLayer`;
    this.attention = this.child('self_attn', new LlamaAttention(settings, rope, window));
    this.mlp = this.child('mlp', new GatedMlp(`${settings.family}MLP`, settings));
    this.attentionNorm = this.child('input_layernorm', norm());
    this.mlpNorm = this.child('post_attention_layernorm', norm());
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    const h = this.attention.forward(this.attentionNorm.forward(x), x, index, pass);
    return this.mlp.forward(this.mlpNorm.forward(h), h);
  }
}

/** The decoder without a head. */
export class LlamaModel extends Module implements Model {
  readonly className: string;
  readonly embedding: Embedding;
  readonly layers: readonly LlamaDecoderLayer[];
  readonly norm: RmsNorm;
  readonly vocabSize: number;
  readonly maxContext: number;
  readonly state: readonly StateSpec[];
  readonly inputs: readonly InputName[] = ['tokenIds', 'positionIds'];

  constructor(settings: LlamaSettings) {
    super();
    const { family, vocabSize, hiddenSize, numKvHeads, headDim, maxPositionEmbeddings, rmsNormEps } = settings;
    const rotaryDim = Math.floor(headDim * settings.rope.partialRotaryFactor);
    const rope = new Rope(`${family}RotaryEmbedding`, settings.rope, { rotaryDim, maxPositionEmbeddings });
    const windowOf = (type: string) => (type === 'sliding_attention' ? settings.slidingWindow! : 0);
    this.className = `${family}Model`;
    this.vocabSize = vocabSize;
    this.maxContext = maxContext(settings);
    this.embedding = this.child('embed_tokens', new Embedding(vocabSize, hiddenSize));
    const layers = settings.layerTypes.map((type) => new LlamaDecoderLayer(settings, rope, windowOf(type)));
    this.layers = this.child('layers', new ModuleList(layers)).items;
    this.norm = this.child('norm', new RmsNorm(`${family}RMSNorm`, hiddenSize, rmsNormEps));
    this.child('rotary_emb', rope);
    this.state = this.layers.map((owner) => ({ kind: 'kv', owner, numKvHeads, headDim }));
  }

  forward(pass: Pass): Tensor {
    const embedded = checkFinite(this.embedding.forward(pass.inputs.tokenIds!, pass.dtype), 'model.embed_tokens');
    const x = runLayers(this.layers, embedded, pass, 'model.layers', (layer, h, i) => layer.forward(h, i, pass));
    return checkFinite(this.norm.forward(x), 'model.norm');
  }
}

/** An architecture of Llama's modules. @param name begins the names of its Python classes */
export const llamaFamily = <D extends ModelDefinition<string, DecoderConfig>>(
  definition: D,
  name: string,
): Architecture<D> =>
  architecture({
    config: definition,
    heads: {
      causalLM: (settings) =>
        new CausalHead(
          `${name}ForCausalLM`,
          'model',
          new LlamaModel({ ...settings, family: name }),
          settings.hiddenSize,
        ),
      base: (settings) => new LlamaModel({ ...settings, family: name }),
    },
    noSplit: [`${name}DecoderLayer`],
    keepDense: ['lm_head'],
    outputEmbeddings: 'lm_head',
    basePrefix: 'model',
    ignoredTensors: [/\.rotary_emb\.inv_freq$/],
    tied: { 'lm_head.weight': 'model.embed_tokens.weight' },
  });

export const llama = llamaFamily(config, 'Llama');
