import { CheckpointError, UnsupportedError } from '@q/config';
import type { TensorEntry } from '../../safetensors/header.js';
import { expectTensor } from '../bitsandbytes/parts.js';
import type { StoredBase, TensorLookup } from '../format.js';
import { bnbInt8Names } from './names.js';

export interface StoredBnbInt8 extends StoredBase {
  readonly format: 'int8';
  /** i8 [out, in] */
  readonly weight: TensorEntry;
  /** f32 [out] */
  readonly scb: TensorEntry;
  /** u8 scalar; absent in files of early versions, which are row major. */
  readonly weightFormat?: TensorEntry;
}

const op = 'bitsandbytes';

/**
 * The tensors of an LLM.int8 weight; undefined when it is none.
 * @throws CheckpointError naming the tensor when parts are missing or do not fit together
 */
export function recogniseInt8(checkpoint: TensorLookup, weight: TensorEntry): StoredBnbInt8 | undefined {
  if (!weight.name.endsWith('.weight')) return undefined;
  const names = bnbInt8Names(weight.name.slice(0, -'.weight'.length));
  if (!checkpoint.has(names.scb)) {
    if (weight.dtype === 'i8')
      throw new CheckpointError(op, 'an int8 weight has no scales', {
        file: weight.file,
        tensor: weight.name,
        missing: names.scb,
      });
    return undefined;
  }
  const scb = checkpoint.tensor(names.scb);
  if (weight.dtype !== 'i8' || weight.shape.length !== 2) {
    throw new CheckpointError(op, 'a weight with int8 scales is no i8 matrix', {
      file: weight.file,
      tensor: weight.name,
      dtype: weight.dtype,
      shape: weight.shape,
    });
  }
  expectTensor(scb, 'f32', weight.shape[0]);
  const weightFormat = checkpoint.has(names.weightFormat) ? checkpoint.tensor(names.weightFormat) : undefined;
  if (weightFormat) expectTensor(weightFormat, 'u8', 1);
  return { format: 'int8', weight, scb, ...(weightFormat ? { weightFormat } : {}) };
}

/** Throws unless an int8 weight is stored row by row (`weight_format` 0); older layouts were made for certain GPUs. */
export function checkWeightFormat(stored: StoredBnbInt8, bytes: Uint8Array): void {
  if (bytes.length === 1 && bytes[0] === 0) return;
  throw new UnsupportedError(op, 'this layout of int8 weights cannot be read', {
    file: stored.weight.file,
    tensor: stored.weightFormat?.name,
    weight_format: bytes[0],
    why: 'only 0 (row major) is supported',
    fix: 'save the model with bitsandbytes 0.45 or later',
  });
}
