import { embedding, layerNorm, rmsNorm, type FloatDType, type Tensor } from '@q/tensor';
import type { Activation } from '../shared/activation.js';
import { Module, type Parameter } from './module.js';

/** A table of token vectors [vocab, hidden]. */
export class Embedding extends Module {
  readonly className = 'Embedding';
  readonly weight: Parameter;

  constructor(
    vocabSize: number,
    hiddenSize: number,
    private readonly scale = 1,
  ) {
    super();
    this.weight = this.parameter('weight', [vocabSize, hiddenSize]);
  }

  /** ids i32 [T] to [T, hidden] in the activation dtype. */
  forward(ids: Tensor, dtype: FloatDType): Tensor {
    return embedding(this.weight.tensor, ids, { dtype, scale: this.scale });
  }
}

/** Root mean square norm with a learned scale. */
export class RmsNorm extends Module {
  readonly weight: Parameter;

  constructor(
    readonly className: string,
    width: number,
    private readonly eps: number,
  ) {
    super();
    this.weight = this.parameter('weight', [width]);
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight.tensor, { eps: this.eps });
  }
}

/** Layer norm with learned scale and shift. */
export class LayerNorm extends Module {
  readonly className = 'LayerNorm';
  readonly weight: Parameter;
  readonly bias: Parameter;

  constructor(
    width: number,
    private readonly eps: number,
  ) {
    super();
    this.weight = this.parameter('weight', [width]);
    this.bias = this.parameter('bias', [width]);
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, { weight: this.weight.tensor, bias: this.bias.tensor, eps: this.eps });
  }
}

const activationClasses: Readonly<Record<Activation, string>> = {
  silu: 'SiLUActivation',
  gelu: 'GELUActivation',
  gelu_tanh: 'NewGELUActivation',
  quick_gelu: 'QuickGELUActivation',
  relu: 'ReLU',
};

/** The place of an activation function in the tree; what computes it is the linear layer before it. */
export class ActivationFunction extends Module {
  readonly className: string;

  constructor(name: Activation) {
    super();
    this.className = activationClasses[name];
  }
}
