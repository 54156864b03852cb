// Which dense weights keep more precision than the others. Source: transformers' `_keep_in_fp32_modules`, which counts
// where a model becomes float16, and not where it becomes bfloat16. `_keep_in_fp32_modules_strict`, which counts in
// both cases, is a fact of single parameters here.
import { skipRule } from '@q/config';
import type { FloatDType, ParameterSlot } from '@q/tensor';

export interface PrecisionOptions {
  /** Dtype of dense weights; undefined keeps what the file has. */
  readonly dtype?: FloatDType;
  /** Dtype of the model in Python's sense, where `dtype` does not say or a device has another. Default `dtype`. */
  readonly modelDType?: FloatDType;
  /** Modules whose parameters stay in float32 where the others become float16. Default none. */
  readonly keepInFp32?: readonly string[];
}

/** Whether a parameter is kept in float32 whatever the dtype of the others. */
export function inFp32({
  dtype,
  modelDType = dtype,
  keepInFp32 = [],
}: PrecisionOptions): (slot: ParameterSlot) => boolean {
  const rule = skipRule(modelDType === 'f16' ? keepInFp32 : []);
  const moduleOf = (parameter: string) => parameter.slice(0, Math.max(0, parameter.lastIndexOf('.')));
  return (slot) => (slot.kind === 'tensor' && slot.inFp32) || rule.skips(moduleOf(slot.name));
}
