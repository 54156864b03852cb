import { add, scaleInPlace, type Tensor } from '@q/tensor';
import { Module } from '../nn/module.js';
import type { Pass } from '../pass/pass.js';
import type { DecoderLayer, Norm, SequentialParts } from './decoder-layer.js';

/** [T, C] to the same shape; may be in place. */
export type Leave = (x: Tensor) => Tensor;

/** What a layer computes with. */
export interface BranchParts extends Pick<SequentialParts, 'attention' | 'mlp'> {
  /** What attention reads x through. Default: x itself. */
  readonly attentionNorm?: Norm;
  readonly mlpNorm?: Norm;
  /** What the result of attention passes through before it is added. */
  readonly leaveAttention: Leave;
  /** The same for the MLP. */
  readonly leaveMlp: Leave;
}

/** A norm that a branch leaves through. */
export const through =
  (norm: Norm): Leave =>
  (x) =>
    norm.forward(x);

/** A factor on what a branch gives. */
export const times =
  (factor: number): Leave =>
  (x) => {
    scaleInPlace(x, { factor });
    return x;
  };

/**
 * Attention and MLP, with norms before them or without; what attention and MLP give is changed once more before it is
 * added.
 */
export class BranchLayer extends Module implements DecoderLayer {
  /** @param children in Python's order; those of `parts` among them */
  constructor(
    readonly className: string,
    children: Readonly<Record<string, Module>>,
    private readonly parts: BranchParts,
  ) {
    super();
    this.childrenNamed(children);
  }

  // x [T, C] → same
  forward(x: Tensor, index: number, pass: Pass): Tensor {
    const { attentionNorm, attention, leaveAttention, mlpNorm, mlp, leaveMlp } = this.parts;
    const h = add(x, leaveAttention(attention.forward(attentionNorm?.forward(x) ?? x, index, pass)));
    return add(h, leaveMlp(mlp.forward(mlpNorm?.forward(h) ?? h)));
  }
}
