import { checkFinite, scaleInPlace, type Tensor } from '@q/tensor';
import type { CausalLM, InputName, Model, StateSpec } from '../model.js';
import { Linear } from '../nn/linear.js';
import { Module } from '../nn/module.js';
import type { Pass } from '../pass/pass.js';

export interface CausalHeadOptions {
  /** Default false. */
  readonly bias?: boolean;
  /** Factor on the logits. Default none. */
  readonly logitScale?: number;
  /** Logits become softcap · tanh(logits / softcap). Default none. */
  readonly softcap?: number;
}

/** A decoder with its language modelling head, which most architectures have under the same names. */
export class CausalHead<M extends Model & Module = Model & Module> extends Module implements CausalLM {
  readonly base: M;
  readonly head: Linear;
  readonly #scaling: { readonly factor?: number; readonly softcap?: number } | undefined;

  /**
   * @param className of the Python class
   * @param prefix name of the base model in it
   * @param width of the base model's hidden states
   */
  constructor(
    readonly className: string,
    prefix: string,
    base: M,
    width: number,
    { bias = false, logitScale, softcap }: CausalHeadOptions = {},
  ) {
    super();
    if (logitScale !== undefined || softcap !== undefined) this.#scaling = { factor: logitScale, softcap };
    this.base = this.child(prefix, base);
    this.head = this.child('lm_head', new Linear(width, base.vocabSize, { bias }));
  }

  get vocabSize(): number {
    return this.base.vocabSize;
  }

  get maxContext(): number {
    return this.base.maxContext;
  }

  get state(): readonly StateSpec[] {
    return this.base.state;
  }

  get inputs(): readonly InputName[] {
    return this.base.inputs;
  }

  forward(pass: Pass): Tensor {
    return this.base.forward(pass);
  }

  logits(hidden: Tensor): Tensor {
    const logits = this.head.forward(hidden);
    if (this.#scaling) scaleInPlace(logits, this.#scaling);
    return checkFinite(logits, 'lm_head');
  }
}
