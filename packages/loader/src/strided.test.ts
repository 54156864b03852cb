import { describe, expect, it } from 'vitest';
import { readChunkBytes } from './limits.js';
import { copyElements, readStrided } from './strided.js';

describe('readStrided', () => {
  // Larger than one read, with sides that are no multiples of a tile.
  const [inner, outer] = [515, 2 * 2051];
  const file = Float32Array.from({ length: inner * outer }, (_, i) => i);

  it.each([
    ['every second column, turned', [2051, 515], [2, outer], 1],
    ['columns, turned', [1000, 515], [1, outer], 70],
    ['every third row', [171, outer], [3 * outer, 1], outer],
    ['every second element of a vector', [4000], [2, 1], 3],
    ['nothing', [0, 515], [2, outer], 0],
  ] as const)('%s: each run of the file once, in pieces', async (_, shape, strides, start) => {
    const [rows, columns = 1] = shape;
    const target = new Float32Array(rows * columns);
    let at = -1;
    await readStrided({ shape, strides, width: 4 }, new Uint8Array(target.buffer), async (from, into) => {
      expect(from).toBeGreaterThan(at);
      expect(into.length).toBeLessThanOrEqual(readChunkBytes);
      at = from + into.length - 1;
      into.set(new Uint8Array(file.buffer, 4 * start + from, into.length));
    });
    let wrong = 0;
    target.forEach((value, i) => {
      const [row, column] = [Math.floor(i / columns), i % columns];
      if (value !== start + row * strides[0] + column * strides[1]) wrong++;
    });
    expect(wrong).toBe(0);
  });
});

it.each([1, 2, 4, 8])('elements of %i bytes are copied from any address', (width) => {
  const source = Uint8Array.from({ length: 35 * 33 * width + 1 }, (_, i) => (i * 7) & 255);
  const bytes = source.subarray(1);
  const turned = new Uint8Array(35 * 33 * width);
  copyElements([35, 33], width, { bytes, start: 0, strides: [33, 1] }, { bytes: turned, start: 0, strides: [1, 35] });
  const back = new Uint8Array(turned.length);
  copyElements(
    [35, 33],
    width,
    { bytes: turned, start: 0, strides: [1, 35] },
    { bytes: back, start: 0, strides: [33, 1] },
  );
  expect(back).toEqual(Uint8Array.from(bytes));
  expect(turned.slice(0, width)).toEqual(Uint8Array.from(bytes.slice(0, width)));
  expect(turned.slice(width, 2 * width)).toEqual(Uint8Array.from(bytes.slice(33 * width, 34 * width)));
});
