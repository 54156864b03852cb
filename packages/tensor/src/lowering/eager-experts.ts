// Routed experts with eager numerics: transformers' grouped_mm_experts_forward, step by step. Its experts are one dense
// tensor, which bitsandbytes does not quantize: the products of quantized ones here are rounded once.
import type { FloatDType } from '../dtype.js';
import type { Tensor } from '../core/tensor.js';
import {
  expertProducts,
  mixChoices,
  type ExpertFusion,
  type ExpertLayer,
  type Routing,
} from '../ops/experts-command.js';
import type { Lowering } from './lowering.js';
import { roundInPlace } from './round.js';

/** See `experts`; arguments are checked already. */
export function eagerExperts(
  x: Tensor,
  { chosen, scores, inModelDType = true }: Routing,
  { gate, up, down }: ExpertLayer,
  { activation, limit, upOffset, residual }: ExpertFusion,
  dtype: FloatDType,
  steps: Pick<Lowering, 'gatedActivation' | 'add'>,
): Tensor {
  const { backend } = x;
  const [rows, choices] = chosen.shape;
  return backend.scope(() => {
    const products = roundInPlace(expertProducts(x, { chosen }, [gate, up], {}), dtype); // [T K, 2 width]
    const h = steps.gatedActivation(products, activation, { limit, upOffset }); // [T K, width]
    const alone = { chosen: chosen.reshape([rows * choices, 1]) };
    const y = roundInPlace(expertProducts(h, alone, [down], {}), dtype); // [T K, hidden]
    if (inModelDType) roundInPlace(scores, dtype);
    const out = roundInPlace(mixChoices(y, scores, inModelDType ? dtype : 'f32'), dtype);
    return residual ? steps.add(residual, out) : out;
  });
}
