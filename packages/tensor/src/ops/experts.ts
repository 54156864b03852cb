// Routed experts (mixture of experts): every row goes through some of them, which the device chooses.
import { ShapeError, UnsupportedError } from '@q/config';
import { maxChoices, maxExperts, routeKinds, type RouteKind } from '../driver/schema.js';
import type { Tensor } from '../core/tensor.js';
import { checkActivation, checkDType, checkFloat, checkIndices, checkShape } from './check.js';
import { unlike, type ExpertFusion, type ExpertLayer, type Routing } from './experts-command.js';
import type { LinearPart } from './linear-command.js';

export type { ExpertFusion, ExpertLayer, Routing } from './experts-command.js';

export interface RouteOptions {
  /** Experts of each row. */
  readonly choices: number;
  /**
   * `softmax`: scores are the softmax over all experts; `softmax_of_chosen`: over the chosen; `sigmoid`: the sigmoids
   * of the chosen.
   */
  readonly kind: RouteKind;
  /** Whether scores are divided by their sum. Default false. */
  readonly normalize?: boolean;
  /** Factor on the scores. Default 1. */
  readonly scale?: number;
  /** For sigmoid: f32 [E], added for the choice only. */
  readonly bias?: Tensor;
  /** For sigmoid: the experts chosen are of the `top` groups whose two best have the largest sums. */
  readonly groups?: { readonly count: number; readonly top: number };
  /** See {@link Routing}. Default true. */
  readonly inModelDType?: boolean;
}

/** @throws ShapeError */
function checkRoute(logits: Tensor, { choices, kind, bias, groups }: RouteOptions): void {
  checkActivation('route', 'logits', logits);
  checkShape('route', 'logits', logits, ['T', 'E']);
  const experts = logits.dim(1);
  const refuse = (what: string, fields: object) => {
    throw new ShapeError('route', what, { experts, ...fields });
  };
  if (experts < 1 || experts > maxExperts) refuse(`takes 1 to ${maxExperts} experts`, {});
  if (choices < 1 || choices > Math.min(experts, maxChoices))
    refuse(`takes 1 to ${Math.min(experts, maxChoices)} choices`, { choices });
  if (bias) {
    checkDType('route', 'bias', bias, 'f32');
    checkShape('route', 'bias', bias, [experts]);
  }
  if (kind !== 'sigmoid' && (bias || (groups && groups.count !== 1)))
    refuse('bias and groups are for sigmoid', { kind });
  if (!groups || groups.count === 1) return;
  const { count, top } = groups;
  const size = experts / count;
  if (!Number.isInteger(size) || size < 2) refuse('groups must hold two experts or more each', { groups: count });
  if (top < 1 || top > count || top * size < choices) refuse('the groups do not hold the choices', { top, choices });
}

/**
 * Which experts each row goes through.
 * @param logits activations [T, E], at most 256 experts
 * @returns the choices, the best first, and their scores; -1 and NaN for a row whose logits are broken
 * @throws ShapeError, DTypeError
 */
export function route(logits: Tensor, options: RouteOptions): Routing {
  checkRoute(logits, options);
  const { choices, kind, normalize = false, scale = 1, bias, groups, inModelDType = true } = options;
  const [rows, experts] = logits.shape;
  const { backend } = logits;
  const chosen = backend.empty([rows, choices], 'i32');
  const scores = backend.empty([rows, choices], 'f32');
  backend.submit('route', {
    logits: logits.ref(),
    bias: bias?.ref(),
    chosen: chosen.ref(),
    scores: scores.ref(),
    rows,
    experts,
    choices,
    kind: routeKinds[kind],
    normalize: Number(normalize),
    groups: groups?.count ?? 1,
    topGroups: groups?.top ?? 1,
    scale,
  });
  return { chosen, scores, inModelDType };
}

/** The weights of one product, for each expert, all [n, k] and stored alike. @throws ShapeError, UnsupportedError */
function checkList(name: string, parts: readonly LinearPart[], n: number, k: number): void {
  for (const [expert, { weight, bias }] of parts.entries()) {
    if (weight.shape[0] !== n || weight.shape[1] !== k)
      throw new ShapeError('experts', `${name} of expert ${expert} has the wrong shape`, {
        got: weight.shape,
        expected: [n, k],
      });
    if (!bias) continue;
    checkFloat('experts', 'bias', bias);
    checkShape('experts', 'bias', bias, [n]);
  }
  const difference = unlike(parts);
  if (difference === undefined) return;
  throw new UnsupportedError('experts', `the experts' ${name} are stored in different ways: ${difference}`, {
    why: 'one product goes through all experts of a layer',
    fix: 'quantize all experts of a layer, or none',
  });
}

const checked = new WeakSet<ExpertLayer>();

/** A layer whose weights stay is checked once. */
function checkLayer(layer: ExpertLayer, hidden: number): void {
  if (checked.has(layer)) return;
  const { gate, up, down } = layer;
  if (gate.length < 1 || gate.length > maxExperts || gate.length !== up.length || gate.length !== down.length)
    throw new ShapeError('experts', `takes gate, up and down of 1 to ${maxExperts} experts`, {
      got: [gate.length, up.length, down.length],
    });
  const width = gate[0].weight.shape[0];
  checkList('gate and up', [...gate, ...up], width, hidden);
  checkList('down', down, hidden, width);
  checked.add(layer);
}

/**
 * Sum over the choices of each row of score · down(activation(gate x) · (up x + upOffset)), + residual; only chosen
 * experts are computed.
 * @param x activations [T, hidden]
 * @returns activations [T, hidden]; NaN in a row with a choice of -1
 * @throws ShapeError, DTypeError; UnsupportedError when the experts are not all stored alike
 */
export function experts(x: Tensor, routing: Routing, layer: ExpertLayer, fusion: ExpertFusion): Tensor {
  checkActivation('experts', 'x', x);
  checkShape('experts', 'x', x, ['T', 'hidden']);
  const [rows, hidden] = x.shape;
  const { chosen, scores } = routing;
  checkIndices('experts', 'chosen', chosen, [rows, 'K']);
  checkDType('experts', 'scores', scores, 'f32');
  checkShape('experts', 'scores', scores, [rows, chosen.dim(1)]);
  checkLayer(layer, hidden);
  if (fusion.residual) {
    checkActivation('experts', 'residual', fusion.residual);
    checkShape('experts', 'residual', fusion.residual, [rows, hidden]);
  }
  return x.backend.lowering.experts(x, routing, layer, fusion);
}

/** x act [T, width] times a factor for each row: f32 [T, 1]. @throws ShapeError, DTypeError */
export function scaleRows(x: Tensor, factors: Tensor): Tensor {
  checkActivation('scaleRows', 'x', x);
  checkShape('scaleRows', 'x', x, ['T', 'width']);
  checkDType('scaleRows', 'factors', factors, 'f32');
  checkShape('scaleRows', 'factors', factors, [x.dim(0), 1]);
  return x.backend.lowering.scaleRows(x, factors);
}
