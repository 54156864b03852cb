import type { Tensor } from '@q/tensor';
import type { StoredTensor } from './format.js';

/** A tensor to be written as a device has it; `shape` is the one that the file says. */
export const fromDevice = (name: string, tensor: Tensor, shape: readonly number[] = tensor.shape): StoredTensor => ({
  name,
  dtype: tensor.dtype,
  shape,
  bytes: () => tensor.toBytes(),
});

/** A tensor to be written that is known beforehand. */
export const constant = (
  name: string,
  dtype: StoredTensor['dtype'],
  shape: readonly number[],
  bytes: Uint8Array,
): StoredTensor => ({ name, dtype, shape, bytes: async () => bytes });
