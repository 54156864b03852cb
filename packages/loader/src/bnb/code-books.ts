// What the codes of bitsandbytes stand for, as it writes them into checkpoints.
import { codebooks, dynamicMap } from '@q/tensor';
import type { Bnb4bitType } from './names.js';

/** `quant_map`: the 16 values of a 4-bit type, by code. The kernels' fp4 book has -0 for code 8, the file has 0. */
export const codeBook4bit = (type: Bnb4bitType): Float32Array =>
  codebooks[type].map((value) => (value === 0 ? 0 : value));

/** `nested_quant_map`: the 256 values of the signed dynamic 8-bit code, ascending. */
export const dynamicCodeBook = (): Float32Array => dynamicMap.slice();
