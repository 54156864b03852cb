import { embedding, type Tensor } from '@q/tensor';
import type { Pass } from '../pass/pass.js';
import { constantOf, type Constant } from './constant.js';
import { Module } from './module.js';

/** Rows [sines | cosines] of positions, in float32 as Python computes them. */
export function sinusoids(rows: number, width: number): Float32Array {
  const half = width / 2;
  const f32 = Math.fround;
  const step = f32(-Math.log(10000) / (half - 1));
  const frequencies = Array.from({ length: half }, (_, i) => f32(Math.exp(f32(i * step))));
  const table = new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) {
    frequencies.forEach((frequency, i) => {
      const angle = f32(row * frequency);
      table[row * width + i] = Math.sin(angle);
      table[row * width + half + i] = Math.cos(angle);
    });
  }
  return table;
}

export interface SinusoidalShape {
  /** Positions. */
  readonly count: number;
  readonly width: number;
  /** Position p has row p + offset. */
  readonly offset: number;
  /** A row of zeros; null for none. */
  readonly zeroRow: number | null;
}

/**
 * Positions as sines and cosines of frequencies 10000^(-i / (width / 2 - 1)) (fairseq's variant of Vaswani et al.
 * 2017); no weights.
 */
export class SinusoidalPositions extends Module {
  readonly #table: Constant;

  constructor(
    readonly className: string,
    { count, width, offset, zeroRow }: SinusoidalShape,
  ) {
    super();
    const rows = count + offset;
    this.buffers.set('weights', { shape: [rows, width], dtype: 'float32' });
    this.#table = constantOf(() => {
      const table = sinusoids(rows, width);
      if (zeroRow !== null) table.fill(0, zeroRow * width, (zeroRow + 1) * width);
      return table.subarray(offset * width);
    }, [count, width]);
  }

  /** The rows of a pass: [T, width]. */
  forward({ backend, rows, dtype }: Pass): Tensor {
    return embedding(this.#table.on(backend), rows.positions, { dtype });
  }

  override dispose(): void {
    this.#table.dispose();
  }
}
