import type { FloatDType } from '../dtype.js';
import type { Tensor } from '../core/tensor.js';

/** Rounds activations in place to a 16-bit dtype; f32 and the dtype that they have round nothing. @returns x */
export function roundInPlace(x: Tensor, dtype: FloatDType): Tensor {
  if (dtype === 'f32' || dtype === x.dtype) return x;
  const narrow = x.backend.empty(x.shape, dtype);
  x.backend.submit('cast', { x: x.ref(), out: narrow.ref() });
  x.backend.submit('cast', { x: narrow.ref(), out: x.ref() });
  narrow.dispose();
  return x;
}
