import { ShapeError } from '@q/config';
import type { Tensor } from '../core/tensor.js';
import { checkActivation, checkFloat, checkShape } from './check.js';
import { add, copy, fill, multiply } from './elementwise.js';
import { settle } from './settle.js';

export interface NormOptions {
  eps: number;
  /** Added to x first, in place: afterwards x holds x + residual. Shape of x. */
  residual?: Tensor;
}

/**
 * Root mean square norm over the last axis (Zhang and Sennrich 2019): x / sqrt(mean(x²) + eps) · (weight +
 * weightOffset).
 * @param x activations [T, width]
 * @param weight float [width]
 */
export function rmsNorm(
  x: Tensor,
  weight: Tensor,
  { eps, residual, weightOffset = 0 }: NormOptions & { weightOffset?: number },
): Tensor {
  const { rows, width } = rowsOf('rmsNorm', x, residual);
  checkFloat('rmsNorm', 'weight', weight);
  checkShape('rmsNorm', 'weight', weight, [width]);
  if (x.backend.eager) return eagerRmsNorm(x, weight, { eps, residual, weightOffset });
  const out = x.backend.empty(x.shape, x.dtype);
  x.backend.submit('rmsNorm', {
    x: x.ref(),
    residual: residual?.ref(),
    sum: residual && x.ref(),
    weight: weight.ref(),
    out: out.ref(),
    rows,
    width,
    eps,
    weightOffset,
  });
  return out;
}

/**
 * As transformers' LlamaRMSNorm: x / sqrt(...) is rounded, then multiplied by the weight. With an offset as its
 * GemmaRMSNorm: one rounding.
 */
function eagerRmsNorm(
  x: Tensor,
  weight: Tensor,
  { eps, residual, weightOffset }: NormOptions & { weightOffset: number },
): Tensor {
  const { backend } = x;
  return backend.scope(() => {
    addInto(x, residual);
    const ones = backend.empty([x.dim(-1)], 'f32');
    fill(ones, 1);
    const out = backend.empty(x.shape, x.dtype);
    const scale = weightOffset === 0 ? ones : weight;
    backend.submit('rmsNorm', {
      x: x.ref(),
      residual: undefined,
      sum: undefined,
      weight: scale.ref(),
      out: out.ref(),
      rows: x.rows,
      width: x.dim(-1),
      eps,
      weightOffset,
    });
    settle(out);
    return weightOffset === 0 ? multiply(out, weight) : out;
  });
}

/** x + residual as a step of its own. */
function addInto(x: Tensor, residual: Tensor | undefined): void {
  if (residual) copy(add(x, residual), x);
}

/** Layer norm over the last axis (Ba et al. 2016), with optional weight and bias (float [width]). */
export function layerNorm(
  x: Tensor,
  { weight, bias, eps, residual }: NormOptions & { weight?: Tensor; bias?: Tensor },
): Tensor {
  const { rows, width } = rowsOf('layerNorm', x, residual);
  for (const [name, tensor] of [
    ['weight', weight],
    ['bias', bias],
  ] as const) {
    if (!tensor) continue;
    checkFloat('layerNorm', name, tensor);
    checkShape('layerNorm', name, tensor, [width]);
  }
  const out = x.backend.empty(x.shape, x.dtype);
  if (x.backend.eager) x.backend.scope(() => addInto(x, residual));
  const fused = x.backend.eager ? undefined : residual;
  x.backend.submit('layerNorm', {
    x: x.ref(),
    residual: fused?.ref(),
    sum: fused && x.ref(),
    weight: weight?.ref(),
    bias: bias?.ref(),
    out: out.ref(),
    rows,
    width,
    eps,
  });
  return settle(out);
}

function rowsOf(op: string, x: Tensor, residual: Tensor | undefined): { rows: number; width: number } {
  checkActivation(op, 'x', x);
  if (x.shape.length < 1 || x.dim(-1) === 0)
    throw new ShapeError(op, 'x has no last axis to normalise', { got: x.shape });
  if (residual) {
    checkActivation(op, 'residual', residual);
    checkShape(op, 'residual', residual, [...x.shape]);
  }
  return { rows: x.rows, width: x.dim(-1) };
}
