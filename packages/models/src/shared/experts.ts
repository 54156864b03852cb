// Routed experts (mixture of experts): a router, and the MLPs of which each row goes through some.
import {
  add,
  activation,
  cast,
  denseWeight,
  experts,
  linear,
  route,
  scaleRows,
  type ExpertLayer,
  type GateLimits,
  type LinearPart,
  type RouteOptions,
  type Routing,
  type Source,
  type Tensor,
} from '@q/tensor';
import { activationPlace } from '../nn/layers.js';
import { Linear } from '../nn/linear.js';
import { Module, type Parameter } from '../nn/module.js';
import type { Activation } from './activation.js';
import type { GatedMlp } from './mlp.js';

/** What a router has beside its weight. */
export interface RouterParts {
  /** Of the logits. Default false. */
  readonly bias?: boolean;
  /** What is learned beside the gradient and added to the scores for the choice alone. Default false. */
  readonly correction?: boolean;
  /** Whether logits are in float32 where activations are not. Default false. */
  readonly inFp32?: boolean;
}

/** Which experts a row goes through. The weight is no linear layer in Python, and is never quantized. */
export class Router extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter | undefined;
  readonly correction: Parameter | undefined;
  readonly #inFp32: boolean;

  constructor(
    readonly className: string,
    { hiddenSize, numExperts }: Pick<ExpertsShape, 'hiddenSize' | 'numExperts'>,
    private readonly options: RouteOptions,
    { bias = false, correction = false, inFp32 = false }: RouterParts = {},
  ) {
    super();
    this.weight = this.parameter('weight', [numExperts, hiddenSize]);
    if (bias) this.bias = this.parameter('bias', [numExperts]);
    if (correction)
      this.correction = this.parameter('e_score_correction_bias', [numExperts], { isBuffer: true, inFp32: true });
    this.#inFp32 = inFp32;
  }

  // x [T, C] → experts and scores [T, K]
  forward(x: Tensor): Routing {
    const part = { weight: denseWeight(this.weight.tensor), bias: this.bias?.tensor };
    const logits = linear(x, [part], { inFp32: this.#inFp32 }); // [T, E]
    return route(logits, { ...this.options, bias: this.correction?.tensor });
  }
}

export interface ExpertsShape {
  readonly hiddenSize: number;
  /** Of each expert. */
  readonly expertSize: number;
  readonly numExperts: number;
  readonly hiddenAct: Activation;
  /** Of all products. Default false. */
  readonly expertBias?: boolean;
  /** What is done to gate and up. Default nothing. */
  readonly limits?: GateLimits;
  /** Whether Python has a module for the activation. Default true. */
  readonly activationModule?: boolean;
}

/** One expert; what computes it is the list of them. */
class Expert extends Module {
  readonly className = 'Expert';
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;

  constructor({ hiddenSize, expertSize, expertBias: bias }: ExpertsShape) {
    super();
    this.gate = this.child('gate_proj', new Linear(hiddenSize, expertSize, { bias }));
    this.up = this.child('up_proj', new Linear(hiddenSize, expertSize, { bias }));
    this.down = this.child('down_proj', new Linear(expertSize, hiddenSize, { bias }));
  }
}

/**
 * Gated MLPs under their numbers. Python keeps all experts in two stacks, `gate_up_proj` and `down_proj`; here each
 * matrix is a layer of its own, so that it is quantized, mapped and adapted like any other.
 */
export class Experts extends Module {
  readonly items: readonly Expert[];
  #layer: ExpertLayer | undefined;

  constructor(
    readonly className: string,
    private readonly shape: ExpertsShape,
  ) {
    super();
    this.items = Array.from({ length: shape.numExperts }, (_, i) => this.child(String(i), new Expert(shape)));
    if (shape.activationModule ?? true) this.child('act_fn', activationPlace(shape.hiddenAct));
  }

  // x, residual [T, C] → sum of score · expert(x) over the choices, + residual
  forward(x: Tensor, routing: Routing, residual?: Tensor): Tensor {
    const { hiddenAct: activation, limits } = this.shape;
    return experts(x, routing, this.#layerNow(), { ...limits, activation, residual });
  }

  /** The parts of all experts, made anew only when a weight is another one. */
  #layerNow(): ExpertLayer {
    const list = (name: 'gate' | 'up' | 'down'): LinearPart[] => this.items.map((item) => item[name].part());
    const made = this.#layer;
    const stays = (name: 'gate' | 'up' | 'down') =>
      this.items.every((item, i) => made?.[name][i].weight === item[name].weight);
    if (made && stays('gate') && stays('up') && stays('down')) return made;
    return (this.#layer = { gate: list('gate'), up: list('up'), down: list('down') });
  }

  override dispose(): void {
    this.#layer = undefined;
    super.dispose();
  }
}

/** An MLP for all rows beside the experts. */
export interface SharedExpert {
  readonly mlp: GatedMlp;
  /** What it makes is multiplied by the sigmoid of this product. Default: by nothing. */
  readonly gate?: Linear;
}

/** What a block of experts computes with. */
export interface SparseParts {
  readonly router: Router;
  readonly experts: Experts;
  readonly shared?: SharedExpert;
}

/** The MLP of a layer, of routed experts. */
export class SparseMlp extends Module {
  /** @param children in Python's order; those of `parts` */
  constructor(
    readonly className: string,
    children: Readonly<Record<string, Module>>,
    private readonly parts: SparseParts,
  ) {
    super();
    this.childrenNamed(children);
  }

  // x, residual [T, C] → experts(x) (+ shared(x)) + residual
  forward(x: Tensor, residual?: Tensor): Tensor {
    const { router, experts: routed, shared } = this.parts;
    if (!shared) return routed.forward(x, router.forward(x), residual);
    const y = routed.forward(x, router.forward(x), ofAll(shared, x));
    return residual ? add(residual, y) : y;
  }
}

// x [T, C] → (sigmoid(gate x) ·) mlp(x)
function ofAll({ mlp, gate }: SharedExpert, x: Tensor): Tensor {
  if (!gate) return mlp.forward(x);
  const factors = cast(activation(gate.forward(x), 'sigmoid'), 'f32'); // [T, 1]
  return scaleRows(mlp.forward(x), factors);
}

/**
 * Where files keep an expert's matrix: a tensor of its own, or a row of the stacks that transformers 5 can write, gate
 * above up. Undefined for other parameters.
 * @param own the usual name from the path of the experts, number and matrix (`gate_proj`, `up_proj`, `down_proj`)
 */
export function expertSources(
  parameter: string,
  expertSize: number,
  own: (path: string, expert: string, matrix: string) => string,
): readonly Source[] | undefined {
  const match = /^(.*\.mlp\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight$/.exec(parameter);
  if (!match) return undefined;
  const [, path, expert, matrix] = match;
  const index = Number(expert);
  const usual: Source = { name: own(path, expert, matrix) };
  if (matrix === 'down_proj') return [usual, { name: `${path}.down_proj`, index }];
  return [usual, { name: `${path}.gate_up_proj`, index, rows: { start: matrix === 'up_proj' ? expertSize : 0 } }];
}
