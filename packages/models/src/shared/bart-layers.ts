// Layers of BART and its relatives (Lewis et al. 2019, arXiv 1910.13461): biases everywhere, norms before or behind
// each part.
import { packedQkv, type QkvLayout, type Tensor } from '@q/tensor';
import { attend, attendTo, attendWithin, type CrossHeads } from '../nn/attention.js';
import { LayerNorm, Place } from '../nn/layers.js';
import { forwardTogether, Linear } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import type { Pass } from '../pass/pass.js';
import type { BartSettings } from './bart-config.js';
import type { BartKind } from './bart-kind.js';

export const decoderHeads = ({ hiddenSize, numDecoderHeads }: BartSettings): CrossHeads => ({
  numHeads: numDecoderHeads,
  numKvHeads: numDecoderHeads,
  headDim: hiddenSize / numDecoderHeads,
});

/** A norm and the part that it stands before or behind; the part adds its input to its output. */
function part(
  { normFirst }: BartKind,
  norm: LayerNorm,
  x: Tensor,
  forward: (x: Tensor, residual: Tensor) => Tensor,
): Tensor {
  return normFirst ? forward(norm.forward(x), x) : norm.forward(forward(x, x));
}

/** Projections of a layer's self or cross attention. */
class BartAttention extends Module {
  readonly className: string;
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly out: Linear;

  constructor({ classPrefix }: BartKind, hiddenSize: number) {
    super();
    this.className = `${classPrefix}Attention`;
    const linear = () => new Linear(hiddenSize, hiddenSize, { bias: true });
    this.k = this.child('k_proj', linear());
    this.v = this.child('v_proj', linear());
    this.q = this.child('q_proj', linear());
    this.out = this.child('out_proj', linear());
  }

  // x [T, C] → [T, 3 C]
  qkv(x: Tensor): Tensor {
    return forwardTogether([this.q, this.k, this.v], x);
  }

  // [T', C] → [T', 2 C]
  keyValues(hidden: Tensor): Tensor {
    return forwardTogether([this.k, this.v], hidden);
  }
}

export class BartEncoderLayer extends Module {
  readonly className: string;
  readonly attention: BartAttention;
  readonly attentionNorm: LayerNorm;
  readonly up: Linear;
  readonly down: Linear;
  readonly mlpNorm: LayerNorm;
  readonly layout: QkvLayout;

  constructor(
    private readonly settings: BartSettings,
    private readonly kind: BartKind,
  ) {
    super();
    const { hiddenSize, numHeads, intermediateSize } = settings;
    this.className = `${kind.classPrefix}EncoderLayer`;
    this.layout = packedQkv(numHeads, numHeads, hiddenSize / numHeads);
    this.attention = this.child('self_attn', new BartAttention(kind, hiddenSize));
    this.attentionNorm = this.child('self_attn_layer_norm', new LayerNorm(hiddenSize, 1e-5));
    this.child('activation_fn', new Place(settings.activationClass));
    this.up = this.child('fc1', new Linear(hiddenSize, intermediateSize, { bias: true }));
    this.down = this.child('fc2', new Linear(intermediateSize, hiddenSize, { bias: true }));
    this.mlpNorm = this.child('final_layer_norm', new LayerNorm(hiddenSize, 1e-5));
  }

  // x [T, C] → same
  forward(x: Tensor, _index: number, pass: Pass): Tensor {
    const { attention, kind, layout, settings } = this;
    const h = part(kind, this.attentionNorm, x, (a, residual) =>
      attention.out.forward(attendWithin(attention.qkv(a), pass, layout, { causal: false }), { residual }),
    );
    return part(kind, this.mlpNorm, h, (a, residual) =>
      this.down.forward(this.up.forward(a, { activation: settings.hiddenAct }), { residual }),
    );
  }
}

export class BartDecoderLayer extends Module {
  readonly className: string;
  readonly attention: BartAttention;
  readonly attentionNorm: LayerNorm;
  readonly cross: BartAttention;
  readonly crossNorm: LayerNorm;
  readonly up: Linear;
  readonly down: Linear;
  readonly mlpNorm: LayerNorm;
  readonly layout: QkvLayout;
  readonly heads: CrossHeads;

  constructor(
    private readonly settings: BartSettings,
    private readonly kind: BartKind,
  ) {
    super();
    const { hiddenSize, numDecoderHeads, decoderIntermediateSize } = settings;
    this.className = `${kind.classPrefix}DecoderLayer`;
    this.heads = decoderHeads(settings);
    this.layout = packedQkv(numDecoderHeads, numDecoderHeads, this.heads.headDim);
    this.attention = this.child('self_attn', new BartAttention(kind, hiddenSize));
    this.child('activation_fn', new Place(settings.activationClass));
    this.attentionNorm = this.child('self_attn_layer_norm', new LayerNorm(hiddenSize, 1e-5));
    this.cross = this.child('encoder_attn', new BartAttention(kind, hiddenSize));
    this.crossNorm = this.child('encoder_attn_layer_norm', new LayerNorm(hiddenSize, 1e-5));
    this.up = this.child('fc1', new Linear(hiddenSize, decoderIntermediateSize, { bias: true }));
    this.down = this.child('fc2', new Linear(decoderIntermediateSize, hiddenSize, { bias: true }));
    this.mlpNorm = this.child('final_layer_norm', new LayerNorm(hiddenSize, 1e-5));
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    const { attention, cross, kind, layout, settings } = this;
    const h = part(kind, this.attentionNorm, x, (a, residual) =>
      attention.out.forward(attend(attention.qkv(a), index, pass, layout), { residual }),
    );
    const read = part(kind, this.crossNorm, h, (a, residual) => {
      const keyValuesOf = (hidden: Tensor) => cross.keyValues(hidden);
      return cross.out.forward(attendTo(cross.q.forward(a), index, pass, this.heads, keyValuesOf), { residual });
    });
    return part(kind, this.mlpNorm, read, (a, residual) =>
      this.down.forward(this.up.forward(a, { activation: settings.hiddenAct }), { residual }),
    );
  }
}
