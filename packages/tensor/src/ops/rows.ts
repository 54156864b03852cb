import type { FloatDType } from '../dtype.js';
import type { Tensor } from '../core/tensor.js';
import { checkActivationDType, checkFloat, checkIndices, checkShape } from './check.js';

/**
 * Rows of a table, scaled.
 * @param table float [vocab, width]
 * @param ids i32 [T]; an id outside the table is an error of the queue
 * @param options.dtype dtype of the result, an activation dtype of the device
 * @returns [T, width]
 */
export function embedding(
  table: Tensor,
  ids: Tensor,
  { dtype, scale = 1 }: { dtype: FloatDType; scale?: number },
): Tensor {
  checkFloat('embedding', 'table', table);
  checkShape('embedding', 'table', table, ['vocab', 'width']);
  checkIndices('embedding', 'ids', ids, ['T']);
  checkActivationDType('embedding', 'result', table.backend, dtype);
  return table.backend.lowering.embedding(table, ids, dtype, scale);
}

/** Rows `indices` (i32 [n]) of x [rows, width], any dtype, as a new [n, width]. */
export function selectRows(x: Tensor, indices: Tensor): Tensor {
  checkShape('selectRows', 'x', x, ['rows', 'width']);
  checkIndices('selectRows', 'indices', indices, ['n']);
  return x.backend.lowering.selectRows(x, indices);
}

/** Writes row i of x [n, width] to row indices[i] of `out` [rows, width]; other rows stay. */
export function scatterRows(x: Tensor, indices: Tensor, out: Tensor): void {
  checkShape('scatterRows', 'x', x, ['n', 'width']);
  checkIndices('scatterRows', 'indices', indices, [x.dim(0)]);
  checkShape('scatterRows', 'out', out, ['rows', x.dim(1)]);
  x.backend.submit('scatterRows', {
    x: x.ref(),
    indices: indices.ref(),
    out: out.ref(),
    rows: x.dim(0),
    width: x.dim(1),
  });
}
