import { ShapeError } from '@q/config';
import { maxLinearParts } from '../driver/schema.js';
import type { Tensor } from '../core/tensor.js';
import { checkActivation, checkDType, checkFloat, checkShape } from './check.js';
import { outputWidth, type LinearFusion, type LinearPart } from './linear-command.js';

export type { LinearFusion, LinearPart } from './linear-command.js';

/**
 * y = x · Wᵀ + bias for 1 to 4 weights that share x, side by side, with what follows fused.
 * @param x activations [T, k]
 * @returns activations [T, sum of n], or [T, half of it] when gated; f32 with `inFp32`
 * @throws ShapeError, DTypeError
 */
export function linear(x: Tensor, parts: readonly LinearPart[], fusion: LinearFusion = {}): Tensor {
  const { residual, gated = false, limit = 0, upOffset = 0, inFp32 = false } = fusion;
  checkActivation('linear', 'x', x);
  checkShape('linear', 'x', x, ['T', 'k']);
  const [rows, k] = x.shape;
  if (parts.length < 1 || parts.length > maxLinearParts)
    throw new ShapeError('linear', `takes 1 to ${maxLinearParts} weights`, { got: parts.length });
  for (const { weight, bias } of parts) {
    if (weight.shape[1] !== k)
      throw new ShapeError('linear', 'x does not fit the weight', {
        got: x.shape,
        expected: ['T', weight.shape[1]],
        weight: weight.shape,
      });
    if (bias) {
      checkFloat('linear', 'bias', bias);
      checkShape('linear', 'bias', bias, [weight.shape[0]]);
    }
  }
  if (gated && !hasGateAndUp(parts)) {
    throw new ShapeError('linear', 'gate and up must be two weights of one shape, or the halves of one', {
      got: parts.map(({ weight }) => weight.shape),
    });
  }
  if (!gated && (limit !== 0 || upOffset !== 0))
    throw new ShapeError('linear', 'limit and upOffset are for a gate and its up', { limit, upOffset });
  if (residual) {
    checkActivation('linear', 'residual', residual);
    if (inFp32) checkDType('linear', 'residual', residual, 'f32');
    checkShape('linear', 'residual', residual, [rows, outputWidth(parts, gated)]);
  }
  return x.backend.lowering.linear(x, parts, fusion);
}

const hasGateAndUp = ([first, second, ...more]: readonly LinearPart[]): boolean =>
  second ? more.length === 0 && first.weight.shape[0] === second.weight.shape[0] : first.weight.shape[0] % 2 === 0;
