// Looks at the numbers of stored tensors, in pieces.
import { CheckpointError } from '@q/config';
import { weightScales, type Weight } from '@q/tensor';
import type { Checkpoint } from '../checkpoint.js';
import { readChunkBytes } from '../limits.js';
import type { TensorEntry } from '../safetensors/header.js';

type Options = { readonly signal?: AbortSignal };

async function* pieces(
  checkpoint: Checkpoint,
  entry: TensorEntry,
  { signal }: Options,
): AsyncGenerator<{ at: number; bytes: Uint8Array<ArrayBuffer> }> {
  if (entry.strides) {
    yield { at: 0, bytes: await checkpoint.read(entry, { signal }) };
    return;
  }
  for (let at = 0; at < entry.bytes; at += readChunkBytes) {
    const bytes = new Uint8Array(Math.min(readChunkBytes, entry.bytes - at));
    await checkpoint.readInto(entry, bytes, { from: at, signal });
    yield { at, bytes };
  }
}

/** Whether two tensors have the same element type, shape and bytes. Stops at the first difference. */
export async function sameValues(
  checkpoint: Checkpoint,
  a: TensorEntry,
  b: TensorEntry,
  options: Options = {},
): Promise<boolean> {
  if (a.dtype !== b.dtype || a.shape.join() !== b.shape.join()) return false;
  if (a.strides || b.strides)
    return Buffer.compare(await checkpoint.read(a, options), await checkpoint.read(b, options)) === 0;
  for await (const { at, bytes } of pieces(checkpoint, a, options)) {
    const other = new Uint8Array(bytes.length);
    await checkpoint.readInto(b, other, { from: at, signal: options.signal });
    if (Buffer.compare(bytes, other) !== 0) return false;
  }
  return true;
}

/** All bits of the exponent: a float that has them is infinite or NaN. */
const exponents = { f32: 0x7f800000, f16: 0x7c00, bf16: 0x7f80 } as const;

/**
 * Throws CheckpointError naming tensor and position when a float tensor holds NaN or infinity; other types pass. About
 * 1 ns for each value, beside reading.
 */
export async function checkFinite(checkpoint: Checkpoint, entry: TensorEntry, options: Options = {}): Promise<void> {
  const { dtype } = entry;
  if (dtype !== 'f32' && dtype !== 'f16' && dtype !== 'bf16') return;
  const mask = exponents[dtype];
  for await (const { at, bytes } of pieces(checkpoint, entry, options)) {
    const units = dtype === 'f32' ? new Uint32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
    const found = firstNonFinite(units, mask);
    if (found < 0) continue;
    const position = at / units.BYTES_PER_ELEMENT + found;
    const fraction = dtype === 'f32' ? 0x7fffff : dtype === 'f16' ? 0x3ff : 0x7f;
    throw nonFiniteError(entry, (units[found] & fraction) === 0 ? 'infinite' : 'NaN', { position });
  }
}

function firstNonFinite(units: Uint32Array | Uint16Array, mask: number): number {
  for (let i = 0; i < units.length; i++) if ((units[i] & mask) === mask) return i;
  return -1;
}

/** What to say of a weight that is no number. */
export const nonFiniteError = (
  entry: TensorEntry,
  what: string,
  detail: Readonly<Record<string, unknown>> = {},
): CheckpointError =>
  new CheckpointError('load', `a weight is ${what}`, {
    file: entry.file,
    tensor: entry.name,
    ...(entry.part !== undefined && { part: entry.part }),
    ...detail,
    why: 'every output would be NaN',
    fix: 'the file is damaged, or the model was saved after it diverged',
  });

/**
 * Throws CheckpointError when the scales of a weight that was just quantized show that it was not finite. Reads them
 * from the device, 1/16 of the quantized bytes or less.
 */
export async function checkQuantized(entry: TensorEntry, weight: Weight): Promise<void> {
  for (const tensor of weightScales(weight))
    if (!(await tensor.data()).every((value) => Number.isFinite(Number(value))))
      throw nonFiniteError(entry, 'infinite or NaN and cannot be quantized');
}
