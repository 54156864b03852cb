import { dtypes, type FloatDType } from '../dtype.js';
import type { ActivationKind } from '../driver/schema.js';
import { roundTo } from '../core/half.js';
import type { Tensor } from '../core/tensor.js';
import type { AttentionOptions, AttentionRows, KvLayer, QkvLayout, RopeOptions, WriteRows } from '../ops/attention.js';
import { valueDimOf } from '../ops/attention.js';
import type { GateLimits } from '../ops/elementwise.js';
import type { ExpertFusion, ExpertLayer, Routing } from '../ops/experts-command.js';
import { headNormArgs, type HeadNormOptions, type HeadNormPart } from '../ops/head-norm.js';
import type { LinearFusion, LinearPart } from '../ops/linear-command.js';
import type { LayerNormOptions, RmsNormOptions } from '../ops/norm.js';
import { attentionArgs, rotate } from './attention-args.js';
import { eagerExperts } from './eager-experts.js';
import { eagerLinear } from './eager-linear.js';
import { fused, gate } from './fused.js';
import type { Lowering } from './lowering.js';
import { roundInPlace } from './round.js';

/**
 * Eager numerics: ops compute step by step, as an unfused PyTorch model in this dtype does, and round every
 * intermediate to it. For comparison with Python; slow.
 */
export const eager = (dtype: FloatDType): Lowering => new Eager(dtype);

class Eager implements Lowering {
  constructor(private readonly dtype: FloatDType) {}

  readonly selectRows = fused.selectRows;
  readonly cast = fused.cast;
  readonly crossEntropy = fused.crossEntropy;
  readonly concatColumns = fused.concatColumns;

  /** The scale is a step of its own, with a factor in the dtype of the model. */
  embedding(table: Tensor, ids: Tensor, dtype: FloatDType, scale: number): Tensor {
    const out = this.#settle(fused.embedding(table, ids, dtype, 1));
    if (scale !== 1) this.#scale(out, roundTo(this.dtype, scale));
    return out;
  }

  /** What Python computes in float32 is rounded to nothing else. */
  linear(x: Tensor, parts: readonly LinearPart[], fusion: LinearFusion): Tensor {
    if (fusion.inFp32) return fused.linear(x, parts, fusion);
    return eagerLinear(x, parts, fusion, this.dtype, this);
  }

  experts(x: Tensor, routing: Routing, layer: ExpertLayer, fusion: ExpertFusion): Tensor {
    return eagerExperts(x, routing, layer, fusion, this.dtype, this);
  }

  scaleRows(x: Tensor, factors: Tensor): Tensor {
    return this.#settle(fused.scaleRows(x, factors));
  }

  /**
   * As transformers' LlamaRMSNorm: x / sqrt(...) is rounded, then multiplied by the weight. With an offset as its
   * GemmaRMSNorm, and without `roundFirst`: one rounding.
   */
  rmsNorm(x: Tensor, weight: Tensor, options: RmsNormOptions): Tensor {
    const { eps, residual, weightOffset = 0, roundFirst = weightOffset === 0 } = options;
    return x.backend.scope(() => {
      this.#addInto(x, residual);
      if (!roundFirst) return this.#settle(fused.rmsNorm(x, weight, { eps, weightOffset }));
      const ones = x.backend.empty([x.dim(-1)], 'f32');
      x.backend.submit('fill', { out: ones.ref(), value: 1 });
      return this.multiply(this.#settle(fused.rmsNorm(x, ones, { eps })), weight);
    });
  }

  layerNorm(x: Tensor, { weight, bias, eps, residual }: LayerNormOptions): Tensor {
    x.backend.scope(() => this.#addInto(x, residual));
    return this.#settle(fused.layerNorm(x, { weight, bias, eps }));
  }

  headNorm(x: Tensor, parts: readonly HeadNormPart[], options: HeadNormOptions): void {
    const { weightOffset = 0, centred = false, roundFirst = weightOffset === 0 && !centred } = options;
    x.backend.submit('eagerHeadNorm', {
      ...headNormArgs(x, parts, options),
      roundFirst: Number(roundFirst),
      dtype: dtypes[this.dtype].code,
    });
  }

  ropeKvWrite(qkv: Tensor, kv: KvLayer, rows: WriteRows, layout: QkvLayout, rope: RopeOptions | undefined): void {
    if (rope) rotate(qkv, rows, layout, rope, this.dtype);
    fused.ropeKvWrite(qkv, kv, rows, layout, undefined);
  }

  attention(qkv: Tensor, kv: KvLayer, rows: AttentionRows, layout: QkvLayout, options: AttentionOptions): Tensor {
    const out = qkv.backend.empty([rows.tokens, layout.numHeads * valueDimOf(layout)], qkv.dtype);
    const args = attentionArgs(out, qkv, kv, rows, layout, options);
    qkv.backend.submit('eagerAttention', { ...args, dtype: dtypes[this.dtype].code });
    return out;
  }

  activation(x: Tensor, kind: ActivationKind, inPlace: boolean): Tensor {
    return this.#settle(fused.activation(x, kind, inPlace));
  }

  gatedActivation(x: Tensor, kind: ActivationKind, limits: GateLimits): Tensor {
    return this.#settle(gate(x, kind, limits, this.dtype));
  }

  multiply(a: Tensor, b: Tensor): Tensor {
    return this.#settle(fused.multiply(a, b));
  }

  add(a: Tensor, b: Tensor): Tensor {
    return this.#settle(fused.add(a, b));
  }

  scaleInPlace(x: Tensor, factor: number, softcap: number): void {
    if (softcap === 0) return this.#scale(x, factor);
    if (factor !== 1) this.#scale(x, factor);
    this.#scale(x, 1 / softcap);
    this.activation(x, 'tanh', true);
    this.#scale(x, softcap);
  }

  softmax(x: Tensor): Tensor {
    return this.#settle(fused.softmax(x));
  }

  /** The result of a step, rounded to the dtype of the model. */
  #settle(x: Tensor): Tensor {
    return roundInPlace(x, this.dtype);
  }

  #scale(x: Tensor, factor: number): void {
    fused.scaleInPlace(x, factor, 0);
    this.#settle(x);
  }

  /** x + residual as a step of its own. */
  #addInto(x: Tensor, residual: Tensor | undefined): void {
    if (residual) x.backend.receive(this.add(x, residual), x);
  }
}
