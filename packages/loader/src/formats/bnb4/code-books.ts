// What the codes of bitsandbytes stand for, as it writes them into checkpoints.
import { CheckpointError, UnsupportedError } from '@q/config';
import { codebooks, dynamicMap } from '@q/tensor';
import type { TensorEntry } from '../../safetensors/header.js';
import { asFloat32 } from '../bitsandbytes/parts.js';
import type { Bnb4bitType } from './names.js';

/** `quant_map`: the 16 values of a 4-bit type, by code. The kernels' fp4 book has -0 for code 8, the file has 0. */
export const codeBook4bit = (type: Bnb4bitType): Float32Array =>
  codebooks[type].map((value) => (value === 0 ? 0 : value));

/** `nested_quant_map`: the 256 values of the signed dynamic 8-bit code, ascending. */
export const dynamicCodeBook = (): Float32Array => dynamicMap.slice();

function checkMap(entry: TensorEntry, bytes: Uint8Array, expected: Float32Array, what: string): void {
  const values = asFloat32(bytes);
  const wrong = expected.findIndex((value, code) => !(Math.abs(values[code] - value) <= 1e-6));
  if (wrong < 0 && values.length === expected.length) return;
  const detail = {
    file: entry.file,
    tensor: entry.name,
    code: wrong,
    got: String(values[wrong]),
    expected: expected[wrong],
  };
  if (!values.every(Number.isFinite))
    throw new CheckpointError('bitsandbytes', `the quant_map has values that are no numbers`, detail);
  throw new UnsupportedError('bitsandbytes', `the quant_map is not that of ${what}`, {
    ...detail,
    why: 'kernels have the standard code book built in',
  });
}

/** Throws unless `weight.quant_map` is the code book of its type (to 1e-6). */
export const checkQuantMap = (entry: TensorEntry, bytes: Uint8Array, type: Bnb4bitType): void =>
  checkMap(entry, bytes, codeBook4bit(type), type);

/** Throws unless `weight.nested_quant_map` is the signed dynamic code of 8 bits (to 1e-6). */
export const checkNestedQuantMap = (entry: TensorEntry, bytes: Uint8Array): void =>
  checkMap(entry, bytes, dynamicCodeBook(), 'the dynamic 8-bit type');
