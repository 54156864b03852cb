import { disposeWeight, linear, type LinearFusion, type LinearPart, type Tensor, type Weight } from '@q/tensor';
import { Module, unavailable, type Parameter } from './module.js';

/** y = x · Wᵀ + b, whatever the weight is stored as. */
export class Linear extends Module {
  readonly className: string;
  readonly bias: Parameter | undefined;
  #weight: Weight | undefined;
  #shared = false;
  #disposed = false;

  constructor(
    readonly inFeatures: number,
    readonly outFeatures: number,
    { bias = false, className = 'Linear' }: { bias?: boolean; className?: string } = {},
  ) {
    super();
    this.className = className;
    if (bias) this.bias = this.parameter('bias', [outFeatures]);
  }

  /** @throws CheckpointError before loading, DisposedError after {@link dispose} */
  get weight(): Weight {
    if (!this.#weight) throw unavailable(`a linear layer [${this.outFeatures}, ${this.inFeatures}]`, this.#disposed);
    return this.#weight;
  }

  /** Shape of the dense weight in the Python module, whose Conv1D has it the other way round. */
  get pythonShape(): readonly [number, number] {
    const { inFeatures, outFeatures } = this;
    return this.className === 'Conv1D' ? [inFeatures, outFeatures] : [outFeatures, inFeatures];
  }

  get loaded(): boolean {
    return this.#weight !== undefined;
  }

  /** Gives the layer its weight; `shared`: another module owns it (tied embeddings). */
  load(weight: Weight, { shared = false } = {}): void {
    this.#weight = weight;
    this.#shared = shared;
    this.#disposed = false;
  }

  /** x [T, inFeatures] to [T, outFeatures]. */
  forward(x: Tensor, fusion?: LinearFusion): Tensor {
    return linear(x, [this.part()], fusion);
  }

  part(): LinearPart {
    return { weight: this.weight, bias: this.bias?.tensor };
  }

  override dispose(): void {
    if (this.#weight && !this.#shared) disposeWeight(this.#weight);
    this.#weight = undefined;
    this.#disposed = true;
    super.dispose();
  }
}

/** Several layers on one input, their results side by side: one product on the device. */
export const forwardTogether = (layers: readonly Linear[], x: Tensor, fusion?: LinearFusion): Tensor =>
  linear(
    x,
    layers.map((layer) => layer.part()),
    fusion,
  );
