// Which dense weights keep more precision than the others. Source: transformers' `_keep_in_fp32_modules`, which counts
// where a model becomes float16, and not where it becomes bfloat16.
import { skipRule } from '@q/config';
import type { FloatDType } from '@q/tensor';

export interface PrecisionOptions {
  /** Dtype of dense weights; undefined keeps what the file has. */
  readonly dtype?: FloatDType;
  /** Dtype of the model in Python's sense, where `dtype` does not say or a device has another. Default `dtype`. */
  readonly modelDType?: FloatDType;
  /** Modules whose parameters stay in float32 where the others become float16. Default none. */
  readonly keepInFp32?: readonly string[];
}

/** Whether a parameter, by its full name, is kept in float32 whatever the dtype of the others. */
export function inFp32({
  dtype,
  modelDType = dtype,
  keepInFp32 = [],
}: PrecisionOptions): (parameter: string) => boolean {
  const rule = skipRule(modelDType === 'f16' ? keepInFp32 : []);
  return (parameter) => rule.skips(parameter.slice(0, Math.max(0, parameter.lastIndexOf('.'))));
}
