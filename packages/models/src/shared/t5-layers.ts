// Layers of T5, mT5 and umT5: pre-norm blocks whose scores are not scaled and have a learned bias by distance.
import { checkFinite, packedQkv, type DistanceBias, type QkvLayout, type Tensor } from '@q/tensor';
import { attend, attendTo, attendWithin, type CrossHeads } from '../nn/attention.js';
import { activationPlace, Embedding, Place, RmsNorm } from '../nn/layers.js';
import { forwardTogether, Linear } from '../nn/linear.js';
import { Module, ModuleList } from '../nn/module.js';
import { RelativeBias } from '../nn/relative-bias.js';
import { runLayers } from '../nn/run-layers.js';
import type { Pass } from '../pass/pass.js';
import type { T5Settings } from './t5-config.js';

export const headsOf = ({ numHeads, headDim }: T5Settings): CrossHeads => ({ numHeads, numKvHeads: numHeads, headDim });

/** Projections of a layer's self or cross attention. */
class T5Attention extends Module {
  readonly className: string;
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  readonly bias: RelativeBias | undefined;

  constructor(settings: T5Settings, bidirectional?: boolean) {
    super();
    this.className = `${settings.classPrefix}Attention`;
    const { hiddenSize, numHeads, headDim } = settings;
    const inner = numHeads * headDim;
    this.q = this.child('q', new Linear(hiddenSize, inner));
    this.k = this.child('k', new Linear(hiddenSize, inner));
    this.v = this.child('v', new Linear(hiddenSize, inner));
    this.o = this.child('o', new Linear(inner, hiddenSize));
    if (bidirectional === undefined) return;
    const { relativeAttentionNumBuckets: buckets, relativeAttentionMaxDistance: maxDistance } = settings;
    const table = new RelativeBias({ buckets, maxDistance, bidirectional }, numHeads);
    this.bias = this.child('relative_attention_bias', table);
  }
}

class T5LayerSelfAttention extends Module {
  readonly className: string;
  readonly attention: T5Attention;
  readonly norm: RmsNorm;
  readonly layout: QkvLayout;

  constructor(
    settings: T5Settings,
    private readonly decodes: boolean,
    hasBias: boolean,
  ) {
    super();
    this.className = `${settings.classPrefix}LayerSelfAttention`;
    this.layout = packedQkv(settings.numHeads, settings.numHeads, settings.headDim);
    this.attention = this.child('SelfAttention', new T5Attention(settings, hasBias ? !decodes : undefined));
    this.norm = this.child('layer_norm', normOf(settings));
    this.child('dropout', new Place('Dropout'));
  }

  // x [T, C] → x + attention(norm(x))
  forward(x: Tensor, index: number, pass: Pass, distanceBias: DistanceBias): Tensor {
    const { q, k, v, o } = this.attention;
    const { layout } = this;
    const qkv = forwardTogether([q, k, v], this.norm.forward(x)); // [T, 3 H D]
    const mixed = this.decodes
      ? attend(qkv, index, pass, layout, { scale: 1, distanceBias })
      : attendWithin(qkv, pass, layout, { scale: 1, distanceBias, causal: false });
    return o.forward(mixed, { residual: x });
  }
}

class T5LayerCrossAttention extends Module {
  readonly className: string;
  readonly attention: T5Attention;
  readonly norm: RmsNorm;

  constructor(private readonly settings: T5Settings) {
    super();
    this.className = `${settings.classPrefix}LayerCrossAttention`;
    this.attention = this.child('EncDecAttention', new T5Attention(settings));
    this.norm = this.child('layer_norm', normOf(settings));
    this.child('dropout', new Place('Dropout'));
  }

  // x [T, C] → x + attention(norm(x), encoder's output)
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    const q = this.attention.q.forward(this.norm.forward(x)); // [T, H D]
    const keyValuesOf = (hidden: Tensor) => this.keyValues(hidden);
    const mixed = attendTo(q, index, pass, headsOf(this.settings), keyValuesOf, { scale: 1 });
    return this.attention.o.forward(mixed, { residual: x });
  }

  // [T', C] → [T', 2 H D]
  keyValues(hidden: Tensor): Tensor {
    return forwardTogether([this.attention.k, this.attention.v], hidden);
  }
}

/** The feed-forward network: act(x) or act(gate x) · up x between two products. */
class T5Dense extends Module {
  readonly className: string;
  readonly inner: readonly Linear[];
  readonly outer: Linear;

  constructor(private readonly settings: T5Settings) {
    super();
    const { hiddenSize, intermediateSize, gated } = settings;
    this.className = `${settings.classPrefix}${gated ? 'DenseGatedActDense' : 'DenseActDense'}`;
    const names = gated ? ['wi_0', 'wi_1'] : ['wi'];
    this.inner = names.map((name) => this.child(name, new Linear(hiddenSize, intermediateSize)));
    this.outer = this.child('wo', new Linear(intermediateSize, hiddenSize));
    this.child('dropout', new Place('Dropout'));
    this.child('act', activationPlace(settings.hiddenAct));
  }

  // x, residual [T, C] → residual + wo(act(wi x))
  forward(x: Tensor, residual: Tensor): Tensor {
    const { gated, hiddenAct } = this.settings;
    return this.outer.forward(forwardTogether(this.inner, x, { gated, activation: hiddenAct }), { residual });
  }
}

class T5LayerFF extends Module {
  readonly className: string;
  readonly dense: T5Dense;
  readonly norm: RmsNorm;

  constructor(settings: T5Settings) {
    super();
    this.className = `${settings.classPrefix}LayerFF`;
    this.dense = this.child('DenseReluDense', new T5Dense(settings));
    this.norm = this.child('layer_norm', normOf(settings));
    this.child('dropout', new Place('Dropout'));
  }

  forward(x: Tensor): Tensor {
    return this.dense.forward(this.norm.forward(x), x);
  }
}

class T5Block extends Module {
  readonly className: string;
  readonly attention: T5LayerSelfAttention;
  /** Of decoders. */
  readonly cross: T5LayerCrossAttention | undefined;
  readonly feedForward: T5LayerFF;

  constructor(settings: T5Settings, decodes: boolean, hasBias: boolean) {
    super();
    this.className = `${settings.classPrefix}Block`;
    this.attention = new T5LayerSelfAttention(settings, decodes, hasBias);
    this.cross = decodes ? new T5LayerCrossAttention(settings) : undefined;
    this.feedForward = new T5LayerFF(settings);
    this.child('layer', new ModuleList([this.attention, ...(this.cross ? [this.cross] : []), this.feedForward]));
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass, bias: DistanceBias): Tensor {
    const h = this.attention.forward(x, index, pass, bias);
    return this.feedForward.forward(this.cross?.forward(h, index, pass) ?? h);
  }
}

/** Encoder or decoder. */
export class T5Stack extends Module {
  readonly className: string;
  readonly embedding: Embedding;
  readonly blocks: readonly T5Block[];
  readonly norm: RmsNorm;

  constructor(settings: T5Settings, name: 'encoder' | 'decoder') {
    super();
    this.className = `${settings.classPrefix}Stack`;
    const decodes = name === 'decoder';
    const layers = decodes ? settings.numDecoderLayers : settings.numLayers;
    this.embedding = this.child('embed_tokens', new Embedding(settings.vocabSize, settings.hiddenSize));
    const blocks = Array.from(
      { length: layers },
      (_, i) => new T5Block(settings, decodes, i === 0 || settings.biasInEveryLayer),
    );
    this.blocks = this.child('block', new ModuleList(blocks)).items;
    this.norm = this.child('final_layer_norm', normOf(settings));
    this.child('dropout', new Place('Dropout'));
  }

  forward(pass: Pass): Tensor {
    const shared = this.blocks[0].attention.attention.bias!;
    const biasOf = ({ attention }: T5Block) => (attention.attention.bias ?? shared).on(pass);
    const embedded = checkFinite(
      this.embedding.forward(pass.inputs.tokenIds!, pass.dtype),
      this.pathOf('embed_tokens'),
    );
    const x = runLayers(this.blocks, embedded, pass, this.pathOf('block'), (block, h, i) =>
      block.forward(h, i, pass, biasOf(block)),
    );
    return checkFinite(this.norm.forward(x), this.pathOf('final_layer_norm'));
  }
}

const normOf = ({ classPrefix, hiddenSize, rmsNormEps }: T5Settings): RmsNorm =>
  new RmsNorm(`${classPrefix}LayerNorm`, hiddenSize, rmsNormEps);
