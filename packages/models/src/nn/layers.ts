import { embedding, layerNorm, rmsNorm, type FloatDType, type RmsNormOptions, type Tensor } from '@q/tensor';
import type { Activation } from '../shared/activation.js';
import { Module, type Parameter } from './module.js';

/** A table of token vectors [vocab, hidden], which are multiplied by `scale` (default 1). */
export class Embedding extends Module {
  readonly className: string;
  readonly weight: Parameter;
  private readonly scale: number;

  constructor(
    vocabSize: number,
    hiddenSize: number,
    { scale = 1, className = 'Embedding' }: { scale?: number; className?: string } = {},
  ) {
    super();
    this.className = className;
    this.scale = scale;
    this.weight = this.parameter('weight', [vocabSize, hiddenSize]);
  }

  /** ids i32 [T] to [T, hidden] in the activation dtype. */
  forward(ids: Tensor, dtype: FloatDType): Tensor {
    return embedding(this.weight.tensor, ids, { dtype, scale: this.scale });
  }
}

/** What multiplies in a root mean square norm, and when: see `rmsNorm` of `@q/tensor`. */
export type RmsNormScale = Pick<RmsNormOptions, 'weightOffset' | 'roundFirst'>;

/** Root mean square norm with a learned scale: the weight, or weight + `weightOffset`. */
export class RmsNorm extends Module {
  readonly weight: Parameter;

  constructor(
    readonly className: string,
    width: number,
    private readonly eps: number,
    private readonly options: RmsNormScale = {},
  ) {
    super();
    this.weight = this.parameter('weight', [width]);
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight.tensor, { eps: this.eps, ...this.options });
  }
}

/** Layer norm, with learned scale and shift unless `affine` is false; `bias: false`: without the shift. */
export class LayerNorm extends Module {
  readonly className: string;
  readonly weight: Parameter | undefined;
  readonly bias: Parameter | undefined;

  constructor(
    width: number,
    private readonly eps: number,
    options: { affine?: boolean; bias?: boolean; className?: string } = {},
  ) {
    super();
    const { affine = true, bias = affine, className = 'LayerNorm' } = options;
    this.className = className;
    if (affine) this.weight = this.parameter('weight', [width]);
    if (bias) this.bias = this.parameter('bias', [width]);
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, { weight: this.weight?.tensor, bias: this.bias?.tensor, eps: this.eps });
  }
}

/** A table of vectors for positions [count + offset, hidden]; position p is row p + offset. */
export class LearnedPositions extends Module {
  readonly weight: Parameter;

  constructor(
    count: number,
    hiddenSize: number,
    private readonly offset = 0,
    readonly className = 'Embedding',
  ) {
    super();
    this.weight = this.parameter('weight', [count + offset, hiddenSize]);
  }

  /** positions i32 [T] to [T, hidden] in the activation dtype. */
  forward(positions: Tensor, dtype: FloatDType): Tensor {
    const { tensor } = this.weight;
    return embedding(tensor.slice(this.offset, tensor.rows), positions, { dtype });
  }
}

const activationClasses: Readonly<Record<Activation, string>> = {
  silu: 'SiLUActivation',
  gelu: 'GELUActivation',
  gelu_tanh: 'NewGELUActivation',
  quick_gelu: 'QuickGELUActivation',
  relu: 'ReLU',
};

/** The place in the tree of a module without parameters, which computes nothing here. */
export class Place extends Module {
  constructor(readonly className: string) {
    super();
  }
}

/** The place of an activation function in the tree; what computes it is the linear layer before it. */
export const activationPlace = (name: Activation, className = activationClasses[name]): Place => new Place(className);
