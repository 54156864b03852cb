import { ShapeError } from '@q/config';
import { dtypes } from '../dtype.js';
import { activationKinds, maxLinearParts, quantTypes, weightKinds, type ActivationKind, type CommandArgs } from '../driver/schema.js';
import type { Tensor } from '../core/tensor.js';
import { absmaxRefs } from '../quant/bnb4.js';
import type { Weight } from '../quant/weight.js';
import { checkActivation, checkFloat, checkShape } from './check.js';

/** A weight [n, k] with its bias (float [n]). */
export interface LinearPart {
  readonly weight: Weight;
  readonly bias?: Tensor;
}

export interface LinearFusion {
  /** Added to the result last; activations of the result's shape. */
  readonly residual?: Tensor;
  /** Applied to the result, or to the gate. Default none. */
  readonly activation?: ActivationKind;
  /** The two parts are gate and up: the result is activation(gate) · up. */
  readonly gated?: boolean;
}

type PartArgs = CommandArgs<'linear'>['parts'][number];

const noQuantization = {
  absmax: undefined, nestedAbsmax: undefined, nestedCode: undefined, offset: undefined, blockSize: 0, nestedBlockSize: 0, quantType: 0, computeDtype: 0, threshold: 0,
};

function partArgs({ weight, bias }: LinearPart): PartArgs {
  const base = { ...noQuantization, kind: weightKinds[weight.kind], n: weight.shape[0], bias: bias?.ref() };
  switch (weight.kind) {
    case 'dense':
      return { ...base, weight: weight.values.ref() };
    case 'int8':
      return { ...base, weight: weight.codes.ref(), absmax: weight.absmax.ref(), threshold: weight.threshold };
    case 'bnb4':
      return {
        ...base, ...absmaxRefs(weight.absmax), weight: weight.codes.ref(), blockSize: weight.blockSize, quantType: quantTypes[weight.quantType],
        computeDtype: dtypes[weight.computeDtype].code,
      };
  }
}

/**
 * y = x · Wᵀ + bias for 1 to 4 weights that share x, side by side, with what follows fused.
 * @param x activations [T, k]
 * @returns activations [T, sum of n], or [T, n] when gated
 * @throws ShapeError, DTypeError
 */
export function linear(x: Tensor, parts: readonly LinearPart[], fusion: LinearFusion = {}): Tensor {
  const { residual, activation = 'none', gated = false } = fusion;
  checkActivation('linear', 'x', x);
  checkShape('linear', 'x', x, ['T', 'k']);
  const [rows, k] = x.shape;
  if (parts.length < 1 || parts.length > maxLinearParts) throw new ShapeError('linear', `takes 1 to ${maxLinearParts} weights`, { got: parts.length });
  for (const { weight, bias } of parts) {
    if (weight.shape[1] !== k) throw new ShapeError('linear', 'x does not fit the weight', { got: x.shape, expected: ['T', weight.shape[1]], weight: weight.shape });
    if (bias) {
      checkFloat('linear', 'bias', bias);
      checkShape('linear', 'bias', bias, [weight.shape[0]]);
    }
  }
  if (gated && (parts.length !== 2 || parts[0].weight.shape[0] !== parts[1].weight.shape[0])) {
    throw new ShapeError('linear', 'gate and up must be two weights of one shape', { got: parts.map(({ weight }) => weight.shape) });
  }
  const width = gated ? parts[0].weight.shape[0] : parts.reduce((sum, { weight }) => sum + weight.shape[0], 0);
  const out = x.backend.empty([rows, width], x.dtype);
  if (residual) {
    checkActivation('linear', 'residual', residual);
    checkShape('linear', 'residual', residual, out.shape);
  }
  x.backend.submit('linear', {
    x: x.ref(), out: out.ref(), residual: residual?.ref(), rows, k, activation: activationKinds[activation], gated: Number(gated), parts: parts.map(partArgs),
  });
  return out;
}
