import { ShapeError } from '@q/config';
import type { FloatDType } from '../dtype.js';
import type { CommandArgs } from '../driver/schema.js';
import type { Tensor } from '../core/tensor.js';
import { checkActivation, checkActivationDType, checkDType, checkFloat, checkIndices, checkShape } from './check.js';

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

/** Pieces of the rows of a tensor, and where they go in the result; in elements. */
export interface ColumnPart {
  /** Activations [T, any width]. */
  readonly x: Tensor;
  /** Of the first piece in a row of x. Default 0. */
  readonly from?: number;
  /** Between the pieces in a row of x; 0, the default, repeats one piece. */
  readonly fromStride?: number;
  /** Of the first piece in a row of the result. */
  readonly offset: number;
  /** Between the pieces in a row of the result. Default width. */
  readonly stride?: number;
  /** Pieces. Default 1. */
  readonly count?: number;
  /** Of a piece. Default the width of x. */
  readonly width?: number;
}

/**
 * Pieces of the rows of 1 to 4 tensors side by side in rows of their own.
 * @returns activations [T, rowStride]; what no part writes is undefined
 */
export function concatColumns(parts: readonly ColumnPart[], rowStride: number): Tensor {
  if (parts.length < 1 || parts.length > 4)
    throw new ShapeError('concatColumns', 'takes 1 to 4 parts', { got: parts.length });
  const [first] = parts;
  for (const { x } of parts) {
    checkActivation('concatColumns', 'x', x);
    checkDType('concatColumns', 'x', x, first.x.dtype);
    checkShape('concatColumns', 'x', x, [first.x.dim(0), 'width']);
  }
  return first.x.backend.lowering.concatColumns(parts, rowStride);
}

/** Arguments of the command; they are checked already. */
export function concatArgs(out: Tensor, parts: readonly ColumnPart[]): CommandArgs<'concatColumns'> {
  return {
    out: out.ref(),
    rows: out.rows,
    rowStride: out.dim(-1),
    parts: parts.map(({ x, from = 0, fromStride = 0, offset, width = x.dim(-1), stride = width, count = 1 }) => ({
      x: x.ref(),
      xOffset: from,
      xStride: fromStride,
      xRowStride: x.dim(-1),
      offset,
      stride,
      count,
      width,
    })),
  };
}
