import type { Tensor } from '@q/tensor';
import { activationPlace } from '../nn/layers.js';
import { forwardTogether, Linear } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import type { Activation } from './activation.js';

/** What an MLP computes with. */
export interface MlpParts {
  readonly up: Linear;
  readonly down: Linear;
  readonly activation: Activation;
}

/** Two products with an activation between, under the names of an architecture. */
export class Mlp extends Module {
  /** @param children in Python's order; those of `parts` among them */
  constructor(
    readonly className: string,
    children: Readonly<Record<string, Module>>,
    private readonly parts: MlpParts,
  ) {
    super();
    this.childrenNamed(children);
  }

  // x, residual [T, C] → down(act(up x)) + residual
  forward(x: Tensor, residual?: Tensor): Tensor {
    const { up, down, activation } = this.parts;
    return down.forward(up.forward(x, { activation }), { residual });
  }
}

export interface GatedMlpShape {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly hiddenAct: Activation;
  /** Python class of the activation. Default: that of its usual name. */
  readonly activationClass?: string;
  /** Default false. */
  readonly mlpBias?: boolean;
}

/** Llama's MLP: the activation of one product times another one. */
export class GatedMlp extends Module {
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
  private readonly activation: Activation;

  constructor(
    readonly className: string,
    { hiddenSize, intermediateSize, mlpBias: bias, hiddenAct, activationClass }: GatedMlpShape,
  ) {
    super();
    this.activation = hiddenAct;
    this.gate = this.child('gate_proj', new Linear(hiddenSize, intermediateSize, { bias }));
    this.up = this.child('up_proj', new Linear(hiddenSize, intermediateSize, { bias }));
    this.down = this.child('down_proj', new Linear(intermediateSize, hiddenSize, { bias }));
    this.child('act_fn', activationPlace(hiddenAct, activationClass));
  }

  // x, residual [T, C] → down(act(gate x) · up x) + residual
  forward(x: Tensor, residual?: Tensor): Tensor {
    const h = forwardTogether([this.gate, this.up], x, { gated: true, activation: this.activation });
    return this.down.forward(h, { residual });
  }
}
