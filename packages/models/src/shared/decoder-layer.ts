// The two ways in which decoder layers are put together.
import { add, type Tensor } from '@q/tensor';
import { Module } from '../nn/module.js';
import type { Pass } from '../pass/pass.js';

/** [T, C] to the same shape. */
export interface Norm extends Module {
  forward(x: Tensor): Tensor;
}

interface Attention extends Module {
  forward(x: Tensor, index: number, pass: Pass, residual?: Tensor): Tensor;
}

interface FeedForward extends Module {
  forward(x: Tensor, residual?: Tensor): Tensor;
}

/** A layer of a decoder; `index` counts the layers. */
export interface DecoderLayer extends Module {
  forward(x: Tensor, index: number, pass: Pass): Tensor;
}

/** What a layer computes with. */
export interface SequentialParts {
  readonly attentionNorm: Norm;
  readonly attention: Attention;
  readonly mlpNorm: Norm;
  readonly mlp: FeedForward;
}

/** The MLP reads what attention leaves; a norm before each. */
export class SequentialLayer extends Module implements DecoderLayer {
  /** @param children in Python's order; those of `parts` unless they are below another one */
  constructor(
    readonly className: string,
    children: Readonly<Record<string, Module>>,
    private readonly parts: SequentialParts,
  ) {
    super();
    this.childrenNamed(children);
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    const { attentionNorm, attention, mlpNorm, mlp } = this.parts;
    const h = attention.forward(attentionNorm.forward(x), index, pass, x);
    return mlp.forward(mlpNorm.forward(h), h);
  }
}

/** What a layer computes with whose parts are side by side. */
export interface ParallelParts extends Omit<SequentialParts, 'mlpNorm'> {
  /** Default: the MLP reads what attention reads. */
  readonly mlpNorm?: Norm;
  /** What Python adds to x first: attention, or the sum of attention and MLP. */
  readonly addsFirst: 'attention' | 'sum';
}

/** Attention and MLP both read the input of the layer, through one norm or one each. */
export class ParallelLayer extends Module implements DecoderLayer {
  /** @param children in Python's order; those of `parts` among them */
  constructor(
    readonly className: string,
    children: Readonly<Record<string, Module>>,
    private readonly parts: ParallelParts,
  ) {
    super();
    this.childrenNamed(children);
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    const { attentionNorm, attention, mlpNorm, mlp, addsFirst } = this.parts;
    const normed = attentionNorm.forward(x);
    const read = mlpNorm?.forward(x) ?? normed;
    if (addsFirst === 'attention') return mlp.forward(read, attention.forward(normed, index, pass, x));
    return add(mlp.forward(read, attention.forward(normed, index, pass)), x);
  }
}
