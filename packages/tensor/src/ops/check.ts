import { DTypeError, ShapeError } from '@q/config';
import { isFloat, type DType } from '../dtype.js';
import type { Backend } from '../core/backend.js';
import type { Tensor } from '../core/tensor.js';

const wanted = (shape: readonly (number | string)[]) => `[${shape.join(', ')}]`;

/** Checks a shape; strings in `expected` match any length and name the axis in the message. @throws ShapeError */
export function checkShape(op: string, name: string, tensor: Tensor, expected: readonly (number | string)[]): void {
  const fits =
    tensor.shape.length === expected.length &&
    expected.every((size, axis) => typeof size === 'string' || size === tensor.shape[axis]);
  if (!fits) throw new ShapeError(op, `${name} has the wrong shape`, { got: tensor.shape, expected: wanted(expected) });
}

/** @throws DTypeError unless the dtype is one of `expected`. */
export function checkDType(op: string, name: string, tensor: Tensor, ...expected: readonly DType[]): void {
  if (!expected.includes(tensor.dtype)) throw new DTypeError(op, `${name} is ${tensor.dtype}`, { expected });
}

/** @throws DTypeError unless the tensor is f32, f16 or bf16. */
export function checkFloat(op: string, name: string, tensor: Tensor): void {
  if (!isFloat(tensor.dtype))
    throw new DTypeError(op, `${name} is ${tensor.dtype}`, { expected: ['f32', 'f16', 'bf16'] });
}

/** @throws DTypeError unless the tensor has an activation dtype of its device (f32 on the CPU). */
export function checkActivation(op: string, name: string, tensor: Tensor): void {
  checkActivationDType(op, name, tensor.backend, tensor.dtype);
}

/** @throws DTypeError unless it is an activation dtype of the device. */
export function checkActivationDType(op: string, name: string, backend: Backend, dtype: DType): void {
  const allowed = backend.caps.activationDtypes as readonly DType[];
  if (!allowed.includes(dtype))
    throw new DTypeError(op, `${name} is ${dtype}`, { expected: allowed, device: backend.name });
}

/** Checks that an index list is i32 of the given length. */
export function checkIndices(op: string, name: string, tensor: Tensor, shape: readonly (number | string)[]): void {
  checkDType(op, name, tensor, 'i32');
  checkShape(op, name, tensor, shape);
}
