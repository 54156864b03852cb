// Llama (Touvron et al. 2023, arXiv 2302.13971; transformers models/llama): pre-norm decoder, RMS norm, rotary
// positions, grouped queries, gated SiLU. Mistral adds a sliding window, Qwen 2 biases on q, k and v: both are this
// file with other settings.
import { maxContext, type DecoderConfig } from '@q/config';
import {
  attention,
  checkFinite,
  packedQkv,
  ropeKvWrite,
  type ActivationKind,
  type Backend,
  type KvLayer,
  type QkvLayout,
  type Tensor,
} from '@q/tensor';
import type { Architecture, CausalLM, ForwardContext, KvShape } from './model.js';
import { ActivationFunction, Embedding, RmsNorm } from './nn/layers.js';
import { forwardTogether, Linear } from './nn/linear.js';
import { Module, ModuleList } from './nn/module.js';
import { Rope } from './nn/rope.js';
import { runLayers } from './nn/run-layers.js';

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
  forward(x: Tensor, residual: Tensor, kv: KvLayer, { batch }: ForwardContext): Tensor {
    const qkv = forwardTogether([this.q, this.k, this.v], x); // [T, (H + 2 Hkv) D]
    ropeKvWrite(qkv, kv, batch, this.layout, this.rope.for(batch));
    const mixed = attention(qkv, kv, batch, this.layout, { window: this.window }); // [T, H D]
    return this.o.forward(mixed, { residual });
  }
}

class LlamaMlp extends Module {
  readonly className: string;
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
  private readonly activation: ActivationKind;

  constructor({ family, hiddenSize, intermediateSize, mlpBias: bias, hiddenAct }: LlamaSettings) {
    super();
    this.className = `${family}MLP`;
    this.activation = hiddenAct;
    this.gate = this.child('gate_proj', new Linear(hiddenSize, intermediateSize, { bias }));
    this.up = this.child('up_proj', new Linear(hiddenSize, intermediateSize, { bias }));
    this.down = this.child('down_proj', new Linear(intermediateSize, hiddenSize, { bias }));
    this.child('act_fn', new ActivationFunction(hiddenAct));
  }

  // x, residual [T, C] → residual + down(act(gate x) · up x)
  forward(x: Tensor, residual: Tensor): Tensor {
    const h = forwardTogether([this.gate, this.up], x, { gated: true, activation: this.activation });
    return this.down.forward(h, { residual });
  }
}

class LlamaDecoderLayer extends Module {
  readonly className: string;
  readonly attention: LlamaAttention;
  readonly mlp: LlamaMlp;
  readonly attentionNorm: RmsNorm;
  readonly mlpNorm: RmsNorm;

  constructor(settings: LlamaSettings, rope: Rope, window: number) {
    super();
    const norm = () => new RmsNorm(`${settings.family}RMSNorm`, settings.hiddenSize, settings.rmsNormEps);
    this.className = `${settings.family}DecoderLayer`;
    this.attention = this.child('self_attn', new LlamaAttention(settings, rope, window));
    this.mlp = this.child('mlp', new LlamaMlp(settings));
    this.attentionNorm = this.child('input_layernorm', norm());
    this.mlpNorm = this.child('post_attention_layernorm', norm());
  }

  // x [T, C] → same
  forward(x: Tensor, kv: KvLayer, context: ForwardContext): Tensor {
    const h = this.attention.forward(this.attentionNorm.forward(x), x, kv, context);
    return this.mlp.forward(this.mlpNorm.forward(h), h);
  }
}

class LlamaModel extends Module {
  readonly className: string;
  readonly embedding: Embedding;
  readonly layers: readonly LlamaDecoderLayer[];
  readonly norm: RmsNorm;

  constructor(settings: LlamaSettings, rope: Rope) {
    super();
    this.className = `${settings.family}Model`;
    this.embedding = this.child('embed_tokens', new Embedding(settings.vocabSize, settings.hiddenSize));
    this.layers = this.child(
      'layers',
      new ModuleList(
        settings.layerTypes.map(
          (type) => new LlamaDecoderLayer(settings, rope, type === 'sliding_attention' ? settings.slidingWindow! : 0),
        ),
      ),
    ).items;
    this.norm = this.child('norm', new RmsNorm(`${settings.family}RMSNorm`, settings.hiddenSize, settings.rmsNormEps));
    this.child('rotary_emb', rope);
  }

  forward(context: ForwardContext): Tensor {
    const { batch, kv, dtype } = context;
    const embedded = checkFinite(this.embedding.forward(batch.tokenIds, dtype), 'model.embed_tokens');
    const x = runLayers(this.layers, embedded, 'model.layers', (layer, h, i) => layer.forward(h, kv[i], context));
    return checkFinite(this.norm.forward(x), 'model.norm');
  }
}

/** The decoder with its language modelling head. */
export class LlamaForCausalLM extends Module implements CausalLM {
  readonly className: string;
  readonly model: LlamaModel;
  readonly head: Linear;
  readonly vocabSize: number;
  readonly maxContext: number;
  readonly kvShapes: readonly KvShape[];
  readonly preparesEachStep: boolean;
  readonly #rope: Rope;

  constructor(settings: LlamaSettings) {
    super();
    const { vocabSize, hiddenSize, numKvHeads, headDim, maxPositionEmbeddings } = settings;
    const rotaryDim = Math.floor(headDim * settings.rope.partialRotaryFactor);
    this.className = `${settings.family}ForCausalLM`;
    this.vocabSize = vocabSize;
    this.maxContext = maxContext(settings);
    this.kvShapes = settings.layerTypes.map(() => ({ numKvHeads, headDim }));
    this.#rope = new Rope(`${settings.family}RotaryEmbedding`, settings.rope, { rotaryDim, maxPositionEmbeddings });
    this.preparesEachStep = this.#rope.dependsOnLength;
    this.model = this.child('model', new LlamaModel(settings, this.#rope));
    this.head = this.child('lm_head', new Linear(hiddenSize, vocabSize));
  }

  prepare(backend: Backend, lengths: readonly number[]): void {
    this.#rope.prepare(backend, lengths);
  }

  forward(context: ForwardContext): Tensor {
    return this.model.forward(context);
  }

  logits(hidden: Tensor): Tensor {
    return checkFinite(this.head.forward(hidden), 'lm_head');
  }
}

const family = (modelType: string, name: string): Architecture<DecoderConfig> => ({
  modelType,
  build: (config) => new LlamaForCausalLM({ ...config, family: name }),
  noSplit: [`${name}DecoderLayer`],
  keepDense: ['lm_head'],
  outputEmbeddings: 'lm_head',
  ignoredTensors: [/\.rotary_emb\.inv_freq$/],
  tied: { 'lm_head.weight': 'model.embed_tokens.weight' },
});

export const llama = family('llama', 'Llama');
export const mistral = family('mistral', 'Mistral');
export const qwen2 = family('qwen2', 'Qwen2');
