import type { FloatDType } from '../dtype.js';
import type { Tensor } from '../core/tensor.js';
import { roundTo } from '../core/half.js';
import { checkActivation, checkFloat, checkIndices, checkShape } from './check.js';
import { scaleInPlace } from './elementwise.js';
import { settle } from './settle.js';

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
  const [vocab, width] = table.shape;
  const out = table.backend.empty([ids.count, width], dtype);
  checkActivation('embedding', 'result', out);
  const scaledLater = table.backend.eager !== undefined && scale !== 1;
  table.backend.submit('embedding', {
    table: table.ref(),
    ids: ids.ref(),
    out: out.ref(),
    rows: ids.count,
    width,
    vocab,
    scale: scaledLater ? 1 : scale,
  });
  settle(out);
  if (scaledLater) scaleInPlace(out, { factor: roundTo(table.backend.eager!, scale) });
  return out;
}

/** Rows `indices` (i32 [n]) of x [rows, width], any dtype, as a new [n, width]. */
export function selectRows(x: Tensor, indices: Tensor): Tensor {
  checkShape('selectRows', 'x', x, ['rows', 'width']);
  checkIndices('selectRows', 'indices', indices, ['n']);
  const width = x.dim(1);
  const out = x.backend.empty([indices.count, width], x.dtype);
  x.backend.submit('selectRows', { x: x.ref(), indices: indices.ref(), out: out.ref(), rows: indices.count, width });
  return out;
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
