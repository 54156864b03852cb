import { embedding, type Tensor } from '@q/tensor';
import type { Pass } from '../pass/pass.js';
import { constantOf, type Constant } from './constant.js';
import { Module, type Parameter } from './module.js';

/** Rows [sines | cosines] of positions at frequencies 10000^(-2i / width) (Vaswani et al. 2017), rounded once. */
export function plainSinusoids(rows: number, width: number): Float32Array {
  const sines = Math.ceil(width / 2);
  return Float32Array.from({ length: rows * width }, (_, index) => {
    const [position, column] = [Math.floor(index / width), index % width];
    const i = column % sines;
    const angle = position / 10000 ** ((2 * i) / width);
    return column < sines ? Math.sin(angle) : Math.cos(angle);
  });
}

/** Positions as sines and cosines, of which Python makes a weight: files may hold it or not. */
export class SinusoidalTable extends Module {
  readonly weight: Parameter;
  readonly #computed: Constant;

  constructor(
    readonly className: string,
    count: number,
    width: number,
  ) {
    super();
    this.weight = this.parameter('weight', [count, width], { optional: true });
    this.#computed = constantOf(() => plainSinusoids(count, width), [count, width]);
  }

  /** The rows of a pass: [T, width]. */
  forward({ backend, rows, dtype }: Pass): Tensor {
    const table = this.weight.loaded ? this.weight.tensor : this.#computed.on(backend);
    return embedding(table, rows.positions, { dtype });
  }

  override dispose(): void {
    this.#computed.dispose();
    super.dispose();
  }
}
