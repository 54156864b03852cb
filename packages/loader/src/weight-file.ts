// A file of weights, in whatever container: its tensors by name, and where their bytes lie.
import { openPickled } from './pickle/file.js';
import { openSafetensors } from './safetensors/file.js';
import type { TensorEntry, UnsupportedTensorEntry } from './safetensors/header.js';
import type { FileIdentity } from './small-file.js';

/** A file whose list of tensors was read and checked; the data stays on disk. */
export interface WeightFile {
  readonly path: string;
  /** The file as it was when its list was read; its data counts only while that has not changed. */
  readonly identity: FileIdentity;
  /** Size of the whole file in bytes. */
  readonly bytes: number;
  /** Bytes of tensor data. */
  readonly dataBytes: number;
  /** `{ format: 'pt' }` and the like; empty if the file has none. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Tensors in the order of the file's list. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly unsupported: ReadonlyMap<string, UnsupportedTensorEntry>;
  /** Oddities that do no harm. */
  readonly warnings?: readonly string[];
}

/** Names that PyTorch's own files have. */
const pickled = /\.(bin|pt|pth|ckpt)$/;

/**
 * Reads the list of tensors of a weight file: safetensors, or what `torch.save` writes, by its name.
 * @throws CheckpointError and UnsupportedError naming the file
 */
export const openWeightFile = (path: string, options: { signal?: AbortSignal } = {}): Promise<WeightFile> =>
  pickled.test(path) ? openPickled(path, options) : openSafetensors(path, options);
