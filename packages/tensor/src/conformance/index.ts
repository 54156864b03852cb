import type { Backend } from '../core/backend.js';
import type { FloatDType } from '../dtype.js';
import { attentionCases } from './attention.js';
import { brokenCases } from './broken.js';
import { cancelCases } from './cancel.js';
import { crossCases } from './cross.js';
import { decodingCases } from './decoding.js';
import { eagerCases } from './eager.js';
import { elementwiseCases } from './elementwise.js';
import { expertCases } from './experts.js';
import { Conformance, type ConformanceCase } from './harness.js';
import { headNormCases } from './head-norm.js';
import { linearCases } from './linear.js';
import { refusalCases } from './refusals.js';

export { assertClose, assertEqual, Conformance, numbers, relativeError, type ConformanceCase } from './harness.js';
export { fuzzNative, type Random } from '../testing/fuzz-native.js';
export { runTransfers, transferCases, type Pair, type TransferCase } from './transfer.js';

/** What every backend must do, for every activation dtype that it takes. */
export const conformanceCases: readonly ConformanceCase[] = [
  ...elementwiseCases,
  ...linearCases,
  ...expertCases,
  ...headNormCases,
  ...attentionCases,
  ...crossCases,
  ...decodingCases,
  ...eagerCases,
  ...brokenCases,
  ...refusalCases,
  ...cancelCases,
];

export interface ConformanceReport {
  readonly passed: number;
  readonly failures: readonly { readonly name: string; readonly dtype: FloatDType; readonly message: string }[];
}

/** Runs the cases one after the other and reports; for machines without a test runner. */
export async function runConformance(
  backend: Backend,
  options: {
    dtypes?: readonly FloatDType[];
    filter?: RegExp;
    /** Every `of`th case only, from the `index`th on: a part of the suite for one of several processes. */
    shard?: { index: number; of: number };
  } = {},
): Promise<ConformanceReport> {
  const { index, of } = options.shard ?? { index: 0, of: 1 };
  let at = 0;
  const failures: { name: string; dtype: FloatDType; message: string }[] = [];
  let passed = 0;
  for (const dtype of options.dtypes ?? backend.caps.activationDtypes) {
    for (const { name, run } of conformanceCases) {
      if (options.filter && !options.filter.test(name)) continue;
      if (at++ % of !== index) continue;
      try {
        await run(new Conformance(backend, dtype));
        passed += 1;
      } catch (error) {
        failures.push({ name, dtype, message: (error as Error).message });
      }
    }
  }
  return { passed, failures };
}
