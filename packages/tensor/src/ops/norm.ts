import { ShapeError } from '@q/config';
import type { Tensor } from '../core/tensor.js';
import { checkActivation, checkFloat, checkShape } from './check.js';

export interface NormOptions {
  eps: number;
  /** Added to x first, in place: afterwards x holds x + residual. Shape of x. */
  residual?: Tensor;
}

export interface RmsNormOptions extends NormOptions {
  /** Default 0. */
  weightOffset?: number;
  /**
   * Eager numerics: x / sqrt(...) is rounded before the weight multiplies it, as LlamaRMSNorm does, and Olmo2RMSNorm
   * does not. Default: when weightOffset is 0.
   */
  roundFirst?: boolean;
}

/** Weight and bias: float [width]. */
export interface LayerNormOptions extends NormOptions {
  weight?: Tensor;
  bias?: Tensor;
}

/**
 * Root mean square norm over the last axis (Zhang and Sennrich 2019): x / sqrt(mean(x²) + eps) · (weight +
 * weightOffset).
 * @param x activations [T, width]
 * @param weight float [width]
 */
export function rmsNorm(x: Tensor, weight: Tensor, options: RmsNormOptions): Tensor {
  checkRows('rmsNorm', x, options.residual);
  checkFloat('rmsNorm', 'weight', weight);
  checkShape('rmsNorm', 'weight', weight, [x.dim(-1)]);
  return x.backend.lowering.rmsNorm(x, weight, options);
}

/** Layer norm over the last axis (Ba et al. 2016), with optional weight and bias (float [width]). */
export function layerNorm(x: Tensor, options: LayerNormOptions): Tensor {
  checkRows('layerNorm', x, options.residual);
  checkWidth('weight', options.weight, x.dim(-1));
  checkWidth('bias', options.bias, x.dim(-1));
  return x.backend.lowering.layerNorm(x, options);
}

function checkWidth(name: string, tensor: Tensor | undefined, width: number): void {
  if (!tensor) return;
  checkFloat('layerNorm', name, tensor);
  checkShape('layerNorm', name, tensor, [width]);
}

function checkRows(op: string, x: Tensor, residual: Tensor | undefined): void {
  checkActivation(op, 'x', x);
  if (x.shape.length < 1 || x.dim(-1) === 0)
    throw new ShapeError(op, 'x has no last axis to normalise', { got: x.shape });
  if (!residual) return;
  checkActivation(op, 'residual', residual);
  checkShape(op, 'residual', residual, [...x.shape]);
}
