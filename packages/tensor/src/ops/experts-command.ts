// The arguments of the commands of routed experts.
import { activationKinds, weightKinds, type ActivationKind, type CommandArgs } from '../driver/schema.js';
import { dtypes, type FloatDType } from '../dtype.js';
import type { Tensor } from '../core/tensor.js';
import { formatOf } from '../formats/registry.js';
import type { GateLimits } from './elementwise.js';
import type { LinearPart } from './linear-command.js';

/** Which experts each row goes through, and what each adds. */
export interface Routing {
  /** Experts i32 [T, K]. */
  readonly chosen: Tensor;
  /** Their factors f32 [T, K]. */
  readonly scores: Tensor;
  /** With eager numerics, whether Python keeps the scores in the dtype of the model. Default true. */
  readonly inModelDType?: boolean;
}

/** The products of the experts, one of each for every expert; all weights of a list are stored alike. */
export interface ExpertLayer {
  /** [width, hidden] each. */
  readonly gate: readonly LinearPart[];
  readonly up: readonly LinearPart[];
  /** [hidden, width] each. */
  readonly down: readonly LinearPart[];
}

export interface ExpertFusion extends GateLimits {
  /** Of the gate. */
  readonly activation: ActivationKind;
  /** Added last; activations [T, hidden]. */
  readonly residual?: Tensor;
}

type ExpertArgs = CommandArgs<'expertLinear'>;

/** The fields that all weights of a command share. */
function storage(parts: readonly LinearPart[]) {
  const [{ weight }] = parts;
  const fields = formatOf(weight).fields(weight);
  return {
    kind: weightKinds[weight.kind],
    n: weight.shape[0],
    k: weight.shape[1],
    weightDtype: fields.absmax ? 0 : fields.weight.dtypeCode,
    nested: Number(fields.nestedAbsmax !== undefined),
    blockSize: fields.blockSize ?? 0,
    nestedBlockSize: fields.nestedBlockSize ?? 0,
    quantType: fields.quantType ?? 0,
    computeDtype: fields.computeDtype ?? 0,
    threshold: fields.threshold ?? 0,
  };
}

const tensorsOf = ({ weight, bias }: LinearPart): ExpertArgs['parts'][number] => {
  const { weight: codes, absmax, nestedAbsmax, nestedCode, offset } = formatOf(weight).fields(weight);
  return { weight: codes, bias: bias?.ref(), absmax, nestedAbsmax, nestedCode, offset };
};

/** What of a weight the others of its command must have as well, in words; undefined: they are alike. */
export function unlike(parts: readonly LinearPart[]): string | undefined {
  const [first, ...others] = parts.map((part) => JSON.stringify(storage([part])));
  const at = others.findIndex((other) => other !== first);
  return at < 0 ? undefined : `${first} and, at ${at + 1}, ${others[at]}`;
}

/** Products of each row with its experts: [T, K, columns of an expert]; see the command. */
export function expertProducts(
  x: Tensor,
  { chosen }: Pick<Routing, 'chosen'>,
  lists: readonly (readonly LinearPart[])[],
  { activation = 'none', gated = false, limit = 0, upOffset = 0 }: Partial<ExpertFusion> & { gated?: boolean },
): Tensor {
  const [rows, choices] = chosen.shape;
  const parts = lists[0].flatMap((_, expert) => lists.map((list) => list[expert]));
  const shared = storage(parts);
  const width = gated ? shared.n : shared.n * lists.length;
  const out = x.backend.empty([rows * choices, width], x.dtype);
  x.backend.submit('expertLinear', {
    ...shared,
    x: x.ref(),
    chosen: chosen.ref(),
    scores: undefined,
    residual: undefined,
    out: out.ref(),
    rows,
    choices,
    experts: lists[0].length,
    activation: activationKinds[activation],
    gated: Number(gated),
    limit,
    upOffset,
    parts: parts.map(tensorsOf),
  });
  return out;
}

/** Sums of the products of each row's choices: x [T K, k] to [T, n]. */
function expertSums(x: Tensor, { chosen, scores }: Routing, parts: readonly LinearPart[], residual?: Tensor): Tensor {
  const [rows, choices] = chosen.shape;
  const shared = storage(parts);
  const out = x.backend.empty([rows, shared.n], x.dtype);
  x.backend.submit('expertLinear', {
    ...shared,
    x: x.ref(),
    chosen: chosen.ref(),
    scores: scores.ref(),
    residual: residual?.ref(),
    out: out.ref(),
    rows,
    choices,
    experts: parts.length,
    activation: 0,
    gated: 0,
    limit: 0,
    upOffset: 0,
    parts: parts.map(tensorsOf),
  });
  return out;
}

/** Sums over the choices of rounded score · x: x [T K, width] and scores f32 [T, K] to [T, width]. */
export function mixChoices(x: Tensor, scores: Tensor, dtype: FloatDType): Tensor {
  const [rows, choices] = scores.shape;
  const width = x.dim(1);
  const out = x.backend.empty([rows, width], x.dtype);
  const args = { x: x.ref(), scores: scores.ref(), out: out.ref(), rows, choices, width };
  x.backend.submit('mixChoices', { ...args, dtype: dtypes[dtype].code });
  return out;
}

/** Two commands: the gated products of each choice, and the sums over the choices. Arguments are checked already. */
export function fusedExperts(x: Tensor, routing: Routing, layer: ExpertLayer, fusion: ExpertFusion): Tensor {
  const { residual, ...gate } = fusion;
  return x.backend.scope(() => {
    const h = expertProducts(x, routing, [layer.gate, layer.up], { ...gate, gated: true }); // [T K, width]
    return expertSums(h, routing, layer.down, residual);
  });
}
