// Checks of the tensors that make up a quantized weight of bitsandbytes. Bytes are little-endian, as read from the
// file.
import { CheckpointError } from '@q/config';
import type { TensorEntry } from '../../safetensors/header.js';

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

/** Throws CheckpointError unless a part of a weight has its type and size. */
export function expectTensor(entry: TensorEntry, dtype: string, elements = entry.elements): void {
  if (entry.dtype === dtype && entry.elements === elements) return;
  throw new CheckpointError(op, 'a part of a quantized weight has the wrong type or size', {
    file: entry.file,
    tensor: entry.name,
    dtype: entry.dtype,
    shape: entry.shape,
    expectedDtype: dtype,
    expectedElements: elements,
  });
}
