import { ShapeError } from '@q/config';
import type { FloatDType } from '../dtype.js';
import { randomKinds, type ActivationKind } from '../driver/schema.js';
import type { Tensor } from '../core/tensor.js';
import { checkActivation, checkDType, checkFloat, checkIndices, checkShape } from './check.js';

/** Sets every element, of any dtype. */
export function fill(out: Tensor, value: number): void {
  out.backend.submit('fill', { out: out.ref(), value });
}

/**
 * Fills with random numbers from a counter-based generator: normal N(0, scale²), uniform (-scale, scale), or random
 * bits.
 */
export function fillRandom(
  out: Tensor,
  options: { kind: keyof typeof randomKinds; seed: number; scale?: number },
): void {
  const { kind, seed, scale = 1 } = options;
  if (kind !== 'bits') checkFloat('random', 'out', out);
  out.backend.submit('random', { out: out.ref(), kind: randomKinds[kind], scale, seed });
}

/**
 * Copies bytes between two tensors of the same dtype and count, on one device or from one to another; see {@link
 * Backend.receive}.
 */
export function copy(src: Tensor, out: Tensor): void {
  checkDType('copy', 'out', out, src.dtype);
  if (src.count !== out.count)
    throw new ShapeError('copy', 'element counts differ', { src: src.shape, out: out.shape });
  out.backend.receive(src, out);
}

/** A copy in another float dtype, rounded to nearest even. */
export function cast<D extends FloatDType>(x: Tensor, dtype: D): Tensor<D> {
  checkFloat('cast', 'x', x);
  return x.backend.lowering.cast(x, dtype);
}

/** An activation function, element by element; x may be overwritten with `inPlace`. */
export function activation(x: Tensor, kind: ActivationKind, { inPlace = false } = {}): Tensor {
  checkActivation('activation', 'x', x);
  return x.backend.lowering.activation(x, kind, inPlace);
}

/** What is done to a gate and its up before they are multiplied (gpt-oss). */
export interface GateLimits {
  /** The gate is at most this, up lies within ± this; 0, the default, is no limit. */
  readonly limit?: number;
  /** Added to up. Default 0. */
  readonly upOffset?: number;
}

/** x [T, 2 width] = gate | up gives kind(gate) · (up + upOffset), [T, width]. */
export function gatedActivation(x: Tensor, kind: ActivationKind, limits: GateLimits = {}): Tensor {
  checkActivation('gatedActivation', 'x', x);
  if (x.dim(-1) % 2 !== 0)
    throw new ShapeError('gatedActivation', 'the last axis must hold gate and up side by side', { got: x.shape });
  return x.backend.lowering.gatedActivation(x, kind, limits);
}

/** a · b of equal shapes; or b, of any float dtype, is one row [width] for all rows of a. */
export function multiply(a: Tensor, b: Tensor): Tensor {
  checkActivation('multiply', 'a', a);
  checkFloat('multiply', 'b', b);
  const one = b.shape.length === 1 && a.shape.length > 1;
  checkShape('multiply', 'b', b, one ? [a.dim(-1)] : [...a.shape]);
  return a.backend.lowering.multiply(a, b);
}

/** a + b of equal shapes. */
export function add(a: Tensor, b: Tensor): Tensor {
  checkActivation('add', 'a', a);
  checkDType('add', 'b', b, a.dtype);
  checkShape('add', 'b', b, [...a.shape]);
  return a.backend.lowering.add(a, b);
}

/** x · factor, then softcap · tanh(· / softcap) when a softcap is given (Gemma 2); in place. */
export function scaleInPlace(x: Tensor, { factor = 1, softcap = 0 }: { factor?: number; softcap?: number }): void {
  checkActivation('scale', 'x', x);
  x.backend.lowering.scaleInPlace(x, factor, softcap);
}

/** Softmax over the last axis. */
export function softmax(x: Tensor): Tensor {
  checkActivation('softmax', 'x', x);
  return x.backend.lowering.softmax(x);
}

/** Negative log likelihood of targets (i32 [rows]; negative ones count 0) under logits [rows, V]; f32 [rows]. */
export function crossEntropy(logits: Tensor, targets: Tensor): Tensor<'f32'> {
  checkActivation('crossEntropy', 'logits', logits);
  checkShape('crossEntropy', 'logits', logits, ['rows', 'V']);
  checkIndices('crossEntropy', 'targets', targets, [logits.dim(0)]);
  return logits.backend.lowering.crossEntropy(logits, targets);
}

/** Index of the largest element of each row, the lowest on ties: i32 [rows]. */
export function argmax(x: Tensor): Tensor<'i32'> {
  checkActivation('argmax', 'x', x);
  const out = x.backend.empty(x.shape.slice(0, -1), 'i32');
  x.backend.submit('argmax', { x: x.ref(), out: out.ref(), rows: x.rows, width: x.dim(-1) });
  return out;
}
