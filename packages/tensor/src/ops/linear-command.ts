// The arguments of linear commands.
import { activationKinds, weightKinds, type ActivationKind, type CommandArgs } from '../driver/schema.js';
import type { Tensor } from '../core/tensor.js';
import { formatOf, type Weight } from '../formats/registry.js';
import type { GateLimits } from './elementwise.js';

/** A weight [n, k] with its bias (float [n]). */
export interface LinearPart {
  readonly weight: Weight;
  readonly bias?: Tensor;
}

/** Limits are for gated parts. */
export interface LinearFusion extends GateLimits {
  /** Added to the result last; activations of the result's shape. */
  readonly residual?: Tensor;
  /** Applied to the result, or to the gate. Default none. */
  readonly activation?: ActivationKind;
  /** The two parts, or the two halves of one, are gate and up: the result is activation(gate) · (up + upOffset). */
  readonly gated?: boolean;
  /** Products, what follows and the result are in float32, whatever x is. Default false: in the dtype of x. */
  readonly inFp32?: boolean;
}

type PartArgs = CommandArgs<'linear'>['parts'][number];

/** One literal of one shape, whatever the format: it is made for every product of every step. */
export function partArgs({ weight, bias }: LinearPart): PartArgs {
  const fields = formatOf(weight).fields(weight);
  return {
    kind: weightKinds[weight.kind],
    n: weight.shape[0],
    weight: fields.weight,
    bias: bias?.ref(),
    absmax: fields.absmax,
    nestedAbsmax: fields.nestedAbsmax,
    nestedCode: fields.nestedCode,
    offset: fields.offset,
    blockSize: fields.blockSize ?? 0,
    nestedBlockSize: fields.nestedBlockSize ?? 0,
    quantType: fields.quantType ?? 0,
    computeDtype: fields.computeDtype ?? 0,
    threshold: fields.threshold ?? 0,
  };
}

/** Columns of the result. */
export function outputWidth(parts: readonly LinearPart[], gated: boolean): number {
  const width = parts.reduce((sum, { weight }) => sum + weight.shape[0], 0);
  return gated ? width / 2 : width;
}

/** Gate and up of a part that has one above the other; undefined where the format cannot show them as two weights. */
export function gateAndUp({ weight, bias }: LinearPart): [gate: LinearPart, up: LinearPart] | undefined {
  const format = formatOf(weight);
  const n = weight.shape[0];
  const gate = format.rows(weight, 0, n / 2);
  const up = format.rows(weight, n / 2, n);
  if (!gate || !up) return undefined;
  return [
    { weight: gate, bias: bias?.slice(0, n / 2) },
    { weight: up, bias: bias?.slice(n / 2, n) },
  ];
}

/** The product and what is fused with it as one command; arguments are checked already. */
export function fusedLinear(
  x: Tensor,
  parts: readonly LinearPart[],
  { residual, activation = 'none', gated = false, limit = 0, upOffset = 0 }: LinearFusion,
): Tensor {
  const [rows, k] = x.shape;
  const out = x.backend.empty([rows, outputWidth(parts, gated)], x.dtype);
  x.backend.submit('linear', {
    x: x.ref(),
    out: out.ref(),
    residual: residual?.ref(),
    rows,
    k,
    activation: activationKinds[activation],
    gated: Number(gated),
    limit,
    upOffset,
    parts: parts.map(partArgs),
  });
  return out;
}
