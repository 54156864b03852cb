import { NumericsError } from '@q/config';
import type { Tensor } from '../core/tensor.js';
import { crossEntropy } from './elementwise.js';

/**
 * Looks at x [rows, width] when the backend {@link Backend.checksFinite checks}; otherwise does nothing. A NaN or
 * infinity then rejects the next promise of the backend with a NumericsError that names `what`.
 * @returns x
 */
export function checkFinite(x: Tensor, what: string): Tensor {
  const { backend } = x;
  if (!backend.checksFinite || x.count === 0) return x;
  backend.scope(() => {
    // 0 x is 0 or NaN, and one NaN makes the loss of its row NaN.
    const zeros = backend.empty(x.shape, x.dtype);
    backend.submit('scale', { x: x.ref(), out: zeros.ref(), count: x.count, factor: 0, softcap: 0 });
    const losses = crossEntropy(zeros, backend.tensor(new Int32Array(x.rows), [x.rows], 'i32'));
    backend.inspect(losses, (values) => {
      const rows = Array.from(values.keys()).filter((row) => !Number.isFinite(values[row]));
      if (rows.length === 0) return;
      throw new NumericsError('checkFinite', `${what} gives values that are not finite`, {
        rows: rows.length,
        firstRow: rows[0],
        of: values.length,
        why: 'everything before it is finite, so a weight of it is damaged or a value outgrew its dtype',
        fix: 'compare its weights with the original; in float16, try torchDtype "bfloat16" or "float32"',
      });
    });
  });
  return x;
}
