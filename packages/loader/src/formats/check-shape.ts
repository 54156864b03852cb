import { CheckpointError } from '@q/config';
import type { TensorEntry } from '../safetensors/header.js';

/** @throws CheckpointError when a stored weight is not of the model's shape */
export function checkShape(entry: Pick<TensorEntry, 'name' | 'file' | 'shape'>, expected: readonly number[]): void {
  if (entry.shape.length === expected.length && entry.shape.every((size, axis) => size === expected[axis])) return;
  throw new CheckpointError('load', 'a tensor has another shape than the model', {
    file: entry.file,
    tensor: entry.name,
    got: entry.shape,
    expected,
    why: 'config.json and the weights belong to different models',
  });
}
