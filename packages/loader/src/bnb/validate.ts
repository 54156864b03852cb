// Checks of the numbers inside quantized tensors. They see little-endian bytes as read from the file.
import { CheckpointError, UnsupportedError } from '@q/config';
import type { TensorEntry } from '../safetensors/header.js';
import { codeBook4bit, dynamicCodeBook } from './code-books.js';
import type { Bnb4bitType } from './names.js';

const op = 'bitsandbytes';

/** The bytes of an f32 tensor as numbers; copies only when they are not aligned. */
export function asFloat32(bytes: Uint8Array): Float32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  return new Float32Array(aligned.buffer, aligned.byteOffset, aligned.length / 4);
}

/**
 * Throws CheckpointError, naming file, tensor and position, unless every scale (`absmax`, `nested_absmax`, `SCB`) is
 * finite and not negative. One pass over the values; about 1 ms for 10^6. The `absmax` of a double-quantized weight
 * are codes of 8 bits, of which each one is right: their scales are in `nested_absmax`.
 * @throws CheckpointError also for a tensor of another element type: it holds no scales.
 */
export function checkScales(entry: TensorEntry, bytes: Uint8Array): void {
  if (entry.dtype === 'u8') return;
  if (entry.dtype !== 'f32')
    throw new CheckpointError(op, `scales are stored as ${entry.dtype}`, {
      file: entry.file,
      tensor: entry.name,
      why: 'bitsandbytes writes them in float32 (double-quantized ones as u8 codes)',
    });
  const values = asFloat32(bytes);
  for (let i = 0; i < values.length; i++) {
    if (values[i] >= 0 && values[i] !== Infinity) continue;
    throw new CheckpointError(op, `a scale is ${values[i]}`, {
      file: entry.file,
      tensor: entry.name,
      position: i,
      why: 'an absmax is finite and not negative',
      fix: 'the file is damaged, or the model was saved after it diverged',
    });
  }
}

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
    throw new CheckpointError(op, `the quant_map has values that are no numbers`, detail);
  throw new UnsupportedError(op, `the quant_map is not that of ${what}`, {
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
