import { ShapeError } from '@q/config';
import { dtypeBytes, type FloatDType } from '../dtype.js';
import { activationKinds, randomKinds, type ActivationKind, type TensorRef } from '../driver/schema.js';
import type { Tensor } from '../core/tensor.js';
import { checkActivation, checkDType, checkFloat, checkIndices, checkShape } from './check.js';
import { settle } from './settle.js';

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
  const out = x.backend.empty(x.shape, dtype);
  x.backend.submit('cast', { x: x.ref(), out: out.ref() });
  return out;
}

/** An activation function, element by element; x may be overwritten with `inPlace`. */
export function activation(x: Tensor, kind: ActivationKind, { inPlace = false } = {}): Tensor {
  checkActivation('activation', 'x', x);
  const out = inPlace ? x : x.backend.empty(x.shape, x.dtype);
  x.backend.submit('activation', { x: x.ref(), out: out.ref(), count: x.count, kind: activationKinds[kind] });
  return settle(out);
}

/** x [T, 2 width] = gate | up gives kind(gate) · up, [T, width]. */
export function gatedActivation(x: Tensor, kind: ActivationKind): Tensor {
  checkActivation('gatedActivation', 'x', x);
  if (x.dim(-1) % 2 !== 0)
    throw new ShapeError('gatedActivation', 'the last axis must hold gate and up side by side', { got: x.shape });
  const width = x.dim(-1) / 2;
  const out = x.backend.empty([...x.shape.slice(0, -1), width], x.dtype);
  if (x.backend.eager && x.count > 0) {
    const [gate, { offset, bytes, ...up }] = [activation(x, kind), x.ref()];
    const half = width * dtypeBytes(x.dtype);
    submitProduct(
      out,
      gate.ref(),
      { ...up, offset: offset + half, bytes: bytes - half },
      { aStride: 2 * width, bStride: 2 * width },
    );
    gate.dispose();
    return settle(out);
  }
  x.backend.submit('gatedActivation', { x: x.ref(), out: out.ref(), rows: x.rows, width, kind: activationKinds[kind] });
  return out;
}

/** a · b of equal shapes; or b, of any float dtype, is one row [width] for all rows of a. */
export function multiply(a: Tensor, b: Tensor): Tensor {
  checkActivation('multiply', 'a', a);
  checkFloat('multiply', 'b', b);
  const one = b.shape.length === 1 && a.shape.length > 1;
  checkShape('multiply', 'b', b, one ? [a.dim(-1)] : [...a.shape]);
  const out = a.backend.empty(a.shape, a.dtype);
  submitProduct(out, a.ref(), b.ref(), { aStride: a.dim(-1), bStride: one ? 0 : a.dim(-1) });
  return settle(out);
}

function submitProduct(out: Tensor, a: TensorRef, b: TensorRef, strides: { aStride: number; bStride: number }): void {
  out.backend.submit('multiply', { a, b, out: out.ref(), rows: out.rows, width: out.dim(-1), ...strides });
}

/** a + b of equal shapes. */
export function add(a: Tensor, b: Tensor): Tensor {
  checkActivation('add', 'a', a);
  checkDType('add', 'b', b, a.dtype);
  checkShape('add', 'b', b, [...a.shape]);
  const out = a.backend.empty(a.shape, a.dtype);
  a.backend.submit('add', { a: a.ref(), b: b.ref(), out: out.ref(), count: a.count });
  return settle(out);
}

/** x · factor, then softcap · tanh(· / softcap) when a softcap is given (Gemma 2); in place. */
export function scaleInPlace(x: Tensor, { factor = 1, softcap = 0 }: { factor?: number; softcap?: number }): void {
  checkActivation('scale', 'x', x);
  const step = (by: { factor: number; softcap: number }) => {
    x.backend.submit('scale', { x: x.ref(), out: x.ref(), count: x.count, ...by });
    settle(x);
  };
  if (!x.backend.eager || softcap === 0) return step({ factor, softcap });
  if (factor !== 1) step({ factor, softcap: 0 });
  step({ factor: 1 / softcap, softcap: 0 });
  activation(x, 'tanh', { inPlace: true });
  step({ factor: softcap, softcap: 0 });
}

/** Softmax over the last axis. */
export function softmax(x: Tensor): Tensor {
  checkActivation('softmax', 'x', x);
  const out = x.backend.empty(x.shape, x.dtype);
  x.backend.submit('softmax', { x: x.ref(), out: out.ref(), rows: x.rows, width: x.dim(-1) });
  return settle(out);
}

/** Negative log likelihood of targets (i32 [rows]; negative ones count 0) under logits [rows, V]; f32 [rows]. */
export function crossEntropy(logits: Tensor, targets: Tensor): Tensor<'f32'> {
  checkActivation('crossEntropy', 'logits', logits);
  checkShape('crossEntropy', 'logits', logits, ['rows', 'V']);
  checkIndices('crossEntropy', 'targets', targets, [logits.dim(0)]);
  const out = logits.backend.empty([logits.dim(0)], 'f32');
  logits.backend.submit('crossEntropy', {
    logits: logits.ref(),
    targets: targets.ref(),
    out: out.ref(),
    rows: logits.dim(0),
    width: logits.dim(1),
  });
  return out;
}

/** Index of the largest element of each row, the lowest on ties: i32 [rows]. */
export function argmax(x: Tensor): Tensor<'i32'> {
  checkActivation('argmax', 'x', x);
  const out = x.backend.empty(x.shape.slice(0, -1), 'i32');
  x.backend.submit('argmax', { x: x.ref(), out: out.ref(), rows: x.rows, width: x.dim(-1) });
  return out;
}
