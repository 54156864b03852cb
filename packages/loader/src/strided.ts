// Matrices whose rows or columns are apart: parts of tensors on disk, copied through memory.
import { setImmediate } from 'node:timers/promises';
import { readChunkBytes } from './limits.js';

/** Distances of rows and of the values of a row, in elements. */
export type Strides = readonly [row: number, column: number];

/** Elements somewhere in memory. */
interface Elements {
  readonly bytes: Uint8Array;
  /** The first one. */
  readonly start: number;
  readonly strides: Strides;
}

/** Rows and columns of a shape: all axes behind the first are columns. */
export function gridOf(shape: readonly number[]): readonly [rows: number, columns: number] {
  const [rows, ...rest] = shape;
  return [rows, rest.reduce((a, b) => a * b, 1)];
}

/** By the bytes of an element: what every dtype is copied as. */
const unitArrays = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array } as const;

function unitsOf({ bytes }: Elements, width: number): { [index: number]: number | bigint } {
  const aligned = bytes.byteOffset % width === 0 ? bytes : bytes.slice();
  return new unitArrays[width as keyof typeof unitArrays](
    aligned.buffer as ArrayBuffer,
    aligned.byteOffset,
    Math.floor(aligned.length / width),
  );
}

/** Elements of a side of the tiles in which a matrix is turned: of 8 to 64, the fastest for [6400, 1600] f32. */
const tile = 64;

/** Bytes that are copied before others have their turn: some milliseconds. */
const pieceBytes = readChunkBytes / 4;

/** Copies a matrix of elements, whatever the distances on either side. `to` begins at a multiple of `width`. */
export function copyElements(
  [rows, columns]: readonly [rows: number, columns: number],
  width: number,
  from: Elements,
  to: Elements,
): void {
  const source = unitsOf(from, width);
  const target = unitsOf(to, width);
  const [fromRow, fromColumn] = from.strides;
  const [toRow, toColumn] = to.strides;
  for (let row0 = 0; row0 < rows; row0 += tile) {
    const rowEnd = Math.min(rows, row0 + tile);
    for (let column0 = 0; column0 < columns; column0 += tile) {
      const columnEnd = Math.min(columns, column0 + tile);
      for (let row = row0; row < rowEnd; row++) {
        let at = from.start + row * fromRow + column0 * fromColumn;
        let put = to.start + row * toRow + column0 * toColumn;
        for (let column = column0; column < columnEnd; column++) {
          target[put] = source[at];
          at += fromColumn;
          put += toColumn;
        }
      }
    }
  }
}

/** As {@link copyElements}, in pieces between which the event loop goes on. */
export async function copyInTurns(
  [rows, columns]: readonly [rows: number, columns: number],
  width: number,
  from: Elements,
  to: Elements,
): Promise<void> {
  const perPiece = Math.max(1, Math.floor(pieceBytes / (columns * width)));
  const rowsFrom = ({ bytes, start, strides }: Elements, row: number) => ({
    bytes,
    start: start + row * strides[0],
    strides,
  });
  for (let row = 0; row < rows; row += perPiece) {
    const count = Math.min(perPiece, rows - row);
    copyElements([count, columns], width, rowsFrom(from, row), rowsFrom(to, row));
    await setImmediate();
  }
}

/**
 * Reads a matrix whose elements are apart, into memory where they are not. Runs of the file are read one behind the
 * other, each once, some megabytes at a time (or one line of the matrix, where that is longer).
 * @param read the bytes that begin so far behind the first element
 */
export async function readStrided(
  { shape, strides, width }: { readonly shape: readonly number[]; readonly strides: Strides; readonly width: number },
  target: Uint8Array,
  read: (at: number, into: Uint8Array) => Promise<void>,
): Promise<void> {
  const [rows, columns] = gridOf(shape);
  const byRow = strides[0] >= strides[1];
  const [lines, length] = byRow ? [rows, columns] : [columns, rows];
  const [lineStride, step] = byRow ? strides : [strides[1], strides[0]];
  const lineSpan = (length - 1) * step + 1;
  const perRead = Math.max(1, Math.floor(pieceBytes / (lineStride * width)));
  for (let line = 0; line < lines; line += perRead) {
    const count = Math.min(perRead, lines - line);
    const bytes = new Uint8Array(((count - 1) * lineStride + lineSpan) * width);
    await read(line * lineStride * width, bytes);
    const grid = byRow ? ([count, columns] as const) : ([rows, count] as const);
    copyElements(
      grid,
      width,
      { bytes, start: 0, strides },
      { bytes: target, start: byRow ? line * columns : line, strides: [columns, 1] },
    );
  }
}
