// `pytorch_model.bin` and its like: what torch.save writes of a state dict. Only the list of tensors is read.
import type { FileHandle } from 'node:fs/promises';
import { CheckpointError, UnsupportedError } from '@q/config';
import { otherThanPickle } from '../foreign.js';
import { storedDType } from '../safetensors/dtypes.js';
import type { TensorEntry, UnsupportedTensorEntry } from '../safetensors/header.js';
import { fileError, openRegular, readInto, type FileIdentity } from '../small-file.js';
import { countOf, listNames } from '../list-names.js';
import type { WeightFile } from '../weight-file.js';
import { readArchive, readStream, type Container, type OpenFile, type Place } from './container.js';
import { PickleFault, PickleRefusal } from './rebuild.js';
import { PickleEnd } from './unpickle.js';
import { Dict, StridedTensor, type PickleValue } from './values.js';

const op = 'checkpoint';
/** Bytes by which formats are told; the name of a tar archive's format is at byte 257. */
const headBytes = 512;

/** How a file begins, and what reads it. */
const containers: readonly (readonly [string, (file: OpenFile) => Promise<Container>])[] = [
  ['PK\u0003\u0004', readArchive],
  ['\u0080\u0002', readStream],
  ['\u0080\u0003', readStream],
  ['\u0080\u0004', readStream],
  ['\u0080\u0005', readStream],
];

/** Row-major strides; those of dimensions of length 1 do not count. */
function isContiguous({ shape, strides }: StridedTensor): boolean {
  let expected = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expected) return false;
    expected *= shape[i];
  }
  return true;
}

/** Elements of the storage from the first one of a tensor to its last. */
const reach = ({ shape, strides }: StridedTensor): number =>
  shape.reduce((sum, size, i) => sum + (size - 1) * strides[i], 1);

/** A matrix that lies otherwise than row by row, each element in a place of its own: what was transposed. */
const isApart = ({ shape, strides }: StridedTensor): boolean =>
  shape.length === 2 &&
  Math.min(...strides) > 0 &&
  (strides[0] >= shape[1] * strides[1] || strides[1] >= shape[0] * strides[0]);

/** The entry of a tensor, checked against the data of its storage. */
function entryOf(
  name: string,
  tensor: StridedTensor,
  place: Place,
  file: string,
): TensorEntry | UnsupportedTensorEntry {
  const { type, shape, strides, offset } = tensor;
  const elements = shape.includes(0) ? 0 : shape.reduce((product, size) => product * size, 1);
  const end = (offset + (elements === 0 ? 0 : reach(tensor))) * type.bytes;
  if (!Number.isSafeInteger(end) || end > place.bytes)
    throw new CheckpointError(op, 'a tensor is larger than its data', {
      file,
      tensor: name.slice(0, 200),
      bytes: end,
      dataBytes: place.bytes,
      fix: 'fetch the file again',
    });
  const bytes = elements * type.bytes;
  const entry = { name, shape, elements, file, offset: place.offset + offset * type.bytes, bytes };
  const dtype = storedDType(type.name)?.dtype;
  if (!dtype) return { ...entry, storedDtype: type.name };
  if (elements === 0 || isContiguous(tensor)) return { ...entry, dtype };
  if (isApart(tensor)) return { ...entry, dtype, strides: [strides[0], strides[1]] };
  return { ...entry, bytes: place.bytes, storedDtype: `${type.name} with strides ${strides.join(', ')}` };
}

const isName = (key: PickleValue): key is string => typeof key === 'string';

/** The tensors of a state dict by name, and a line about what else is in it. */
function listOf({ value, places }: Container, path: string): Pick<WeightFile, 'tensors' | 'unsupported' | 'warnings'> {
  if (!(value instanceof Dict))
    throw new CheckpointError(op, 'the file holds no state dict', {
      file: path,
      fix: 'save the weights alone: torch.save(model.state_dict(), file)',
    });
  const tensors = new Map<string, TensorEntry>();
  const unsupported = new Map<string, UnsupportedTensorEntry>();
  const others: string[] = [];
  for (const [name, tensor] of value.entries) {
    if (!isName(name) || !(tensor instanceof StridedTensor)) {
      others.push(isName(name) ? name : 'a key that is no text');
      continue;
    }
    const entry = entryOf(name, tensor, places.get(tensor.storage.key)!, path);
    if ('dtype' in entry) tensors.set(name, entry);
    else unsupported.set(name, entry);
  }
  if (tensors.size + unsupported.size === 0)
    throw new CheckpointError(op, 'the file holds no tensors by name', {
      file: path,
      found: others.slice(0, 5).map((name) => name.slice(0, 200)),
      fix: 'save the weights alone: torch.save(model.state_dict(), file)',
    });
  const line = `${path} has ${countOf(others.length, 'value')} besides tensors: ${listNames(others)}`;
  return { tensors, unsupported, warnings: others.length > 0 ? [line] : [] };
}

async function readList(
  handle: FileHandle,
  identity: FileIdentity,
  path: string,
  signal?: AbortSignal,
): Promise<WeightFile> {
  const head = new Uint8Array(Math.min(headBytes, identity.bytes));
  await readInto(handle, path, 0, head, signal);
  const begins = Buffer.from(head).toString('latin1');
  // The length that safetensors begin with may look like a pickle.
  const container = head[8] === 0x7b ? undefined : containers.find(([start]) => begins.startsWith(start));
  if (!container) throw otherThanPickle(head).error(path);
  const { bytes } = identity;
  const found = await container[1]({ handle, path, bytes, signal });
  const dataBytes = [...found.places.values()].reduce((sum, place) => sum + place.bytes, 0);
  return { path, identity, bytes, dataBytes, metadata: { format: 'pt' }, ...listOf(found, path) };
}

/**
 * Reads the list of tensors of a file that `torch.save` wrote, and nothing else. No code that the file names is ever
 * run: a pickle may build tensors, texts, numbers and containers of them.
 * @throws CheckpointError naming the file for what is damaged or too long; UnsupportedError for names and opcodes that
 *   make no tensors, TorchScript, tar archives and big endian numbers
 */
export async function openPickled(path: string, options: { signal?: AbortSignal } = {}): Promise<WeightFile> {
  const { signal } = options;
  signal?.throwIfAborted();
  const { handle, identity } = await openRegular(path);
  try {
    return await readList(handle, identity, path, signal);
  } catch (cause) {
    throw fileError(named(cause, path), path, 'cannot read a PyTorch file');
  } finally {
    await handle.close();
  }
}

/** What is wrong inside a pickle, as errors that name the file. */
function named(cause: unknown, file: string): unknown {
  if (cause instanceof PickleRefusal)
    return new UnsupportedError(op, `the pickle of a PyTorch file is more than tensors: ${cause.message}`, {
      file,
      why: 'only what makes tensors is read of a pickle, since anything else could run code',
      fix: 'save the weights alone: model.save_pretrained(folder), or torch.save(model.state_dict(), file)',
      cause,
    });
  if (cause instanceof PickleFault || cause instanceof PickleEnd)
    return new CheckpointError(op, 'the pickle of a PyTorch file is damaged', {
      file,
      why: cause.message,
      fix: 'fetch the file again',
      cause,
    });
  return cause;
}
