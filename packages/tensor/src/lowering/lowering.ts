import type { FloatDType } from '../dtype.js';
import type { ActivationKind } from '../driver/schema.js';
import type { Tensor } from '../core/tensor.js';
import type { AttentionOptions, AttentionRows, KvLayer, QkvLayout, RopeOptions, WriteRows } from '../ops/attention.js';
import type { ExpertFusion, ExpertLayer, Routing } from '../ops/experts-command.js';
import type { GateLimits } from '../ops/elementwise.js';
import type { HeadNormOptions, HeadNormPart } from '../ops/head-norm.js';
import type { LinearFusion, LinearPart } from '../ops/linear-command.js';
import type { LayerNormOptions, RmsNormOptions } from '../ops/norm.js';
import type { ColumnPart } from '../ops/rows.js';

/**
 * How ops become commands: {@link fused}, one each, unless a backend was given another one (`eager`). An op checks its
 * arguments, then calls the method of its name on the lowering of its backend; nothing else knows which one that is.
 * A lowering takes memory for the results, and may call another lowering.
 */
export interface Lowering {
  embedding(table: Tensor, ids: Tensor, dtype: FloatDType, scale: number): Tensor;
  selectRows(x: Tensor, indices: Tensor): Tensor;
  concatColumns(parts: readonly ColumnPart[], rowStride: number): Tensor;
  linear(x: Tensor, parts: readonly LinearPart[], fusion: LinearFusion): Tensor;
  /** Sum over the choices of score · down(activation(gate x) · (up x + upOffset)), + residual. */
  experts(x: Tensor, routing: Routing, layer: ExpertLayer, fusion: ExpertFusion): Tensor;
  /** `factors`: f32 [T, 1]. */
  scaleRows(x: Tensor, factors: Tensor): Tensor;
  rmsNorm(x: Tensor, weight: Tensor, options: RmsNormOptions): Tensor;
  layerNorm(x: Tensor, options: LayerNormOptions): Tensor;
  headNorm(x: Tensor, parts: readonly HeadNormPart[], options: HeadNormOptions): void;
  ropeKvWrite(qkv: Tensor, kv: KvLayer, rows: WriteRows, layout: QkvLayout, rope: RopeOptions | undefined): void;
  attention(qkv: Tensor, kv: KvLayer, rows: AttentionRows, layout: QkvLayout, options: AttentionOptions): Tensor;
  activation(x: Tensor, kind: ActivationKind, inPlace: boolean): Tensor;
  gatedActivation(x: Tensor, kind: ActivationKind, limits: GateLimits): Tensor;
  /** `b` has the shape of `a`, or is one row for all. */
  multiply(a: Tensor, b: Tensor): Tensor;
  add(a: Tensor, b: Tensor): Tensor;
  scaleInPlace(x: Tensor, factor: number, softcap: number): void;
  cast<D extends FloatDType>(x: Tensor, dtype: D): Tensor<D>;
  softmax(x: Tensor): Tensor;
  crossEntropy(logits: Tensor, targets: Tensor): Tensor<'f32'>;
}
