import type { FloatDType } from '../dtype.js';
import type { Tensor } from '../core/tensor.js';

/** Rounds activations in place to a 16-bit dtype; f32 and the dtype that they have round nothing. */
export function roundInPlace(x: Tensor, dtype: FloatDType): void {
  if (dtype === 'f32' || dtype === x.dtype) return;
  const narrow = x.backend.empty(x.shape, dtype);
  x.backend.submit('cast', { x: x.ref(), out: narrow.ref() });
  x.backend.submit('cast', { x: narrow.ref(), out: x.ref() });
  narrow.dispose();
}

/** The result of a step: with eager numerics rounded to the dtype of the model, else as it is. */
export function settle(x: Tensor): Tensor {
  if (x.backend.eager) roundInPlace(x, x.backend.eager);
  return x;
}
