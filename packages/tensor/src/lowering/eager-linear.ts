// Linear layers with eager numerics: torch.nn.Linear, and bitsandbytes' Linear8bitLt and Linear4bit (MatMul8bitLt,
// matmul_4bit) as they run on a GPU. What is fused elsewhere is a step of its own here.
import { dtypes, type FloatDType } from '../dtype.js';
import type { Tensor } from '../core/tensor.js';
import { denseWeight } from '../formats/dense/dense.js';
import { formatOf } from '../formats/registry.js';
import { fusedLinear, outputWidth, partArgs, type LinearFusion, type LinearPart } from '../ops/linear-command.js';
import { fused } from './fused.js';
import type { Lowering } from './lowering.js';
import { roundInPlace } from './round.js';

/** See `linear`; arguments are checked already. What follows the products is done with `steps`, in order. */
export function eagerLinear(
  x: Tensor,
  parts: readonly LinearPart[],
  { residual, activation = 'none', gated = false, limit = 0, upOffset = 0 }: LinearFusion,
  dtype: FloatDType,
  steps: Pick<Lowering, 'activation' | 'gatedActivation' | 'add'>,
): Tensor {
  const shaped = (y: Tensor) => (activation === 'none' ? y : steps.activation(y, activation, false));
  return x.backend.scope(() => {
    const product = products(x, parts, dtype);
    const y = gated ? steps.gatedActivation(product, activation, { limit, upOffset }) : shaped(product);
    return residual ? steps.add(residual, y) : y;
  });
}

/** x · Wᵀ + bias side by side, rounded. */
function products(x: Tensor, parts: readonly LinearPart[], dtype: FloatDType): Tensor {
  const [rows, k] = x.shape;
  const dtypesOf = new Set(parts.map(({ weight }) => formatOf(weight).eagerDType(weight, rows, dtype)));
  const [compute] = dtypesOf;
  if (dtypesOf.size === 1 && compute) return denseProducts(x, parts, compute, dtype);
  const out = x.backend.empty([rows, outputWidth(parts, false)], x.dtype);
  x.backend.submit('eagerLinear', {
    x: x.ref(),
    out: out.ref(),
    rows,
    k,
    dtype: dtypes[dtype].code,
    parts: parts.map(partArgs),
  });
  return out;
}

/** The products of dense and dequantized weights in the dtype in which they are multiplied. */
function denseProducts(x: Tensor, parts: readonly LinearPart[], compute: FloatDType, dtype: FloatDType): Tensor {
  const narrow = (tensor: Tensor) =>
    compute === dtype || compute === 'f32'
      ? tensor
      : fused.cast(fused.cast(tensor, compute), tensor.dtype as FloatDType);
  const dense = parts.map(({ weight, bias }) => ({
    weight: denseWeight(formatOf(weight).values(weight, compute)),
    bias: bias && narrow(bias),
  }));
  const out = fusedLinear(narrow(x), dense, {});
  for (const step of new Set([compute, dtype])) roundInPlace(out, step);
  return out;
}
