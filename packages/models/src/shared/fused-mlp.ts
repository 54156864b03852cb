import { gatedActivation, type Tensor } from '@q/tensor';
import { activationPlace } from '../nn/layers.js';
import { Linear } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import type { Activation } from './activation.js';
import type { GatedMlpShape } from './mlp.js';

/** Llama's MLP with gate and up in one matrix [2 I, C], gate first. */
export class FusedGatedMlp extends Module {
  readonly gateUp: Linear;
  readonly down: Linear;
  private readonly activation: Activation;

  constructor(
    readonly className: string,
    { hiddenSize, intermediateSize, hiddenAct, activationClass }: GatedMlpShape,
  ) {
    super();
    this.activation = hiddenAct;
    this.gateUp = this.child('gate_up_proj', new Linear(hiddenSize, 2 * intermediateSize));
    this.down = this.child('down_proj', new Linear(intermediateSize, hiddenSize));
    this.child('activation_fn', activationPlace(hiddenAct, activationClass));
  }

  // x, residual [T, C] → down(act(gate x) · up x) + residual
  forward(x: Tensor, residual?: Tensor): Tensor {
    return this.down.forward(gatedActivation(this.gateUp.forward(x), this.activation), { residual });
  }
}
