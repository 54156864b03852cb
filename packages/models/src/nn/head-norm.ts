import { copy, type Backend, type Tensor } from '@q/tensor';
import type { Pass } from '../pass/pass.js';
import type { QueryKeyNorms } from './attention.js';
import { Constant } from './constant.js';
import { LayerNorm } from './layers.js';
import { Module, ModuleList, type Parameter } from './module.js';

/** The scales of layer norms of heads, each of its own: [numHeads, headDim]. What computes it is attention. */
export class HeadNorm extends Module {
  readonly weight: Parameter;

  constructor(
    readonly className: string,
    numHeads: number,
    headDim: number,
  ) {
    super();
    this.weight = this.parameter('weight', [numHeads, headDim]);
  }

  on(): Tensor {
    return this.weight.tensor;
  }
}

/** The same as a list of norms, one module for each head. */
export class HeadNormList extends Module {
  readonly #table: Constant;

  constructor(
    readonly className: string,
    numHeads: number,
    headDim: number,
    eps: number,
  ) {
    super();
    const norms = Array.from({ length: numHeads }, () => new LayerNorm(headDim, eps, { bias: false }));
    this.child('norms', new ModuleList(norms));
    this.#table = new Constant((backend) => {
      const weights = norms.map(({ weight }) => weight!.tensor);
      const table = backend.allocate([numHeads, headDim], weights[0].dtype);
      weights.forEach((weight, head) => copy(weight, table.slice(head, head + 1)));
      return table;
    });
  }

  /** The scales side by side on a device: [numHeads, headDim]. */
  on(backend: Backend): Tensor {
    return this.#table.on(backend);
  }

  override dispose(): void {
    this.#table.dispose();
    super.dispose();
  }
}

type HeadScales = HeadNorm | HeadNormList;

/** Layer norms of query and key heads, for `attend`. */
export const headNormsOf = (query: HeadScales, key: HeadScales, { backend }: Pass, eps: number): QueryKeyNorms => ({
  query: query.on(backend),
  key: key.on(backend),
  eps,
  centred: true,
});
