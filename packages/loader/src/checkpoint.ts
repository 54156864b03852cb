import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import {
  assertKnownKeys,
  assertSignal,
  CheckpointError,
  ConfigError,
  describeValue,
  DisposedError,
  UnsupportedError,
} from '@q/config';
import { dtypeBytes } from '@q/tensor';
import { locate } from './locate.js';
import type { TensorEntry, UnsupportedTensorEntry } from './safetensors/header.js';
import { compareShards, readShardIndex, type ShardIndex } from './shard-index.js';
import { checkUnchanged, fileError, openRegular, readInto, type FileIdentity } from './small-file.js';
import { readStrided } from './strided.js';
import { openWeightFile, type WeightFile } from './weight-file.js';

export interface OpenCheckpointOptions {
  /**
   * File name before `.safetensors`: `model`, `adapter_model`, or what a repository uses. Default `model`, of which
   * PyTorch's own files are called `pytorch_model.bin`.
   */
  baseName?: string;
  /** As transformers' `variant`: `fp16` opens `model.fp16.safetensors`. Default: none. */
  variant?: string;
  signal?: AbortSignal;
}

export interface CheckpointReadOptions {
  signal?: AbortSignal;
}

const op = 'checkpoint';

/**
 * All tensors of a checkpoint, from one file or several, as one view. Only headers were read; `read` fetches data.
 * Files are opened at the first read and closed by `close` (or `await using`).
 */
export class Checkpoint implements AsyncDisposable {
  /** Every tensor by name, in file order. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** Tensors whose element type Q does not compute with; using one throws, having one does not. */
  readonly unsupported: ReadonlyMap<string, UnsupportedTensorEntry>;
  /** `__metadata__` of the files, merged. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Bytes of tensor data over all files. */
  readonly dataBytes: number;
  /** Tensors that the index names and no shard has, with the shard that should: an error where one is needed. */
  readonly absent: ReadonlyMap<string, string>;
  /** Oddities that do no harm, such as a wrong `total_size`. */
  readonly warnings: readonly string[];
  #handles = new Map<string, Promise<FileHandle>>();
  #reads = new Set<Promise<void>>();
  #closed = false;

  constructor(
    readonly folder: string,
    readonly files: readonly WeightFile[],
    readonly index?: ShardIndex,
  ) {
    this.tensors = new Map(files.flatMap((file) => [...file.tensors]));
    this.unsupported = new Map(files.flatMap((file) => [...file.unsupported]));
    const metadata = Object.create(null) as Record<string, string>; // its keys are a stranger's
    for (const file of files) Object.assign(metadata, file.metadata);
    this.metadata = metadata;
    this.dataBytes = files.reduce((sum, file) => sum + file.dataBytes, 0);
    const { absent, warnings } = index
      ? compareShards(index, files)
      : { absent: new Map<string, string>(), warnings: [] };
    this.absent = absent;
    const stated = index?.totalSize;
    const wrongTotal = stated !== undefined && stated !== this.dataBytes;
    const total = `${index?.path}: metadata.total_size is ${stated}, the shards hold ${this.dataBytes} bytes`;
    const ofFiles = files.flatMap((file) => file.warnings ?? []);
    this.warnings = [...(wrongTotal ? [total] : []), ...warnings, ...ofFiles];
  }

  /** Whether the checkpoint has a tensor of this name, of whatever element type. */
  has(name: string): boolean {
    return this.tensors.has(name) || this.unsupported.has(name);
  }

  /** Which file it was whose header was read; undefined for a path that is none of the checkpoint's. */
  identity(path: string): FileIdentity | undefined {
    return this.files.find((file) => file.path === path)?.identity;
  }

  /**
   * The tensor of this name.
   * @throws CheckpointError if there is none; UnsupportedError if Q does not compute with its element type.
   */
  tensor(name: string): TensorEntry {
    const entry = this.tensors.get(name);
    if (entry) return entry;
    const other = this.unsupported.get(name);
    if (other) {
      throw new UnsupportedError(op, `tensors of type ${other.storedDtype} cannot be loaded`, {
        file: other.file,
        tensor: name,
        fix: 'convert the tensor to F32, F16 or BF16',
      });
    }
    const shard = this.absent.get(name);
    throw new CheckpointError(op, 'the checkpoint has no such tensor', {
      tensor: name,
      folder: this.folder,
      files: this.files.length,
      ...(shard !== undefined && {
        why: `the index says that ${shard} has it, which is not so`,
        fix: 'fetch it again',
      }),
    });
  }

  /**
   * The bytes of a tensor, in a buffer of its own (so any alignment of the file is fine).
   * @throws CheckpointError if it is missing or its file is cut short; `signal.reason` when aborted.
   */
  async read(tensor: string | TensorEntry, options: CheckpointReadOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    const entry = typeof tensor === 'string' ? this.tensor(tensor) : tensor;
    const target = new Uint8Array(entry.bytes);
    await this.readInto(entry, target, options);
    return target;
  }

  /**
   * Reads a tensor, or the part of it that begins at byte `options.from` and fills `target`, into memory of the caller.
   * One whose elements are apart is read whole, and its elements are put together.
   * @param target exactly the tensor's bytes if `from` is not given
   */
  async readInto(
    entry: TensorEntry,
    target: Uint8Array,
    options: CheckpointReadOptions & { from?: number } = {},
  ): Promise<void> {
    const { from, signal } = options;
    const start = from ?? 0;
    const whole = from === undefined || entry.strides !== undefined;
    if (start < 0 || start + target.length > entry.bytes || (whole && target.length !== entry.bytes)) {
      throw new CheckpointError(op, 'the wanted bytes are not those of the tensor', {
        file: entry.file,
        tensor: entry.name,
        from: start,
        wantedBytes: target.length,
        tensorBytes: entry.bytes,
      });
    }
    if (this.#closed) throw new DisposedError(op, 'the checkpoint was closed', { folder: this.folder });
    const reading = this.#open(entry.file, entry.name).then((handle) => {
      const read = (at: number, into: Uint8Array) =>
        readInto(handle, entry.file, entry.offset + at, into, signal, entry.name);
      const { shape, strides, dtype } = entry;
      return strides ? readStrided({ shape, strides, width: dtypeBytes(dtype) }, target, read) : read(start, target);
    });
    this.#reads.add(reading);
    try {
      await reading;
    } catch (cause) {
      throw fileError(cause, entry.file, `cannot read tensor ${entry.name}`);
    } finally {
      this.#reads.delete(reading);
    }
  }

  #open(path: string, tensor: string): Promise<FileHandle> {
    let handle = this.#handles.get(path);
    if (!handle) {
      handle = this.#openUnchanged(path, tensor);
      this.#handles.set(path, handle);
      handle.catch(() => this.#handles.delete(path));
    }
    return handle;
  }

  async #openUnchanged(path: string, tensor: string): Promise<FileHandle> {
    const { handle, identity } = await openRegular(path);
    try {
      const was = this.identity(path);
      if (was) checkUnchanged(was, identity, path, 'its header was read', tensor);
      return handle;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** Waits for reads in flight, then closes the files. Reading afterwards throws DisposedError; the lists stay. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#reads);
    const handles = [...this.#handles.values()];
    this.#handles.clear();
    for (const handle of await Promise.allSettled(handles))
      if (handle.status === 'fulfilled') await handle.value.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Throws UnsupportedError for a file that says it was written by another framework. */
function checkFormat(file: WeightFile): WeightFile {
  const { format } = file.metadata;
  if (format !== 'tf' && format !== 'flax') return file;
  throw new UnsupportedError(op, `the checkpoint was written by ${format}`, {
    file: file.path,
    why: 'its matrices are laid out differently',
    fix: 'save it from PyTorch',
  });
}

/**
 * Opens the checkpoint in a folder (or one named file): `model.safetensors`, else `model.safetensors.index.json` with
 * its shards; else `pytorch_model.bin`, or its index with shards. Reads lists of tensors only.
 * @throws ConfigError for a folder that is no text and for options; CheckpointError naming file and tensor for damaged
 *   or missing files, for a tensor that two shards have, and for a folder whose last save did not end; UnsupportedError
 *   naming what is there instead (GGUF, Flax ...); `signal.reason` when aborted. Where index and shards
 *   differ otherwise the shards count: see `warnings`.
 */
export async function openCheckpoint(folder: string, options: OpenCheckpointOptions = {}): Promise<Checkpoint> {
  checkArguments(folder, options);
  const { signal } = options;
  signal?.throwIfAborted();
  const found = await locate(folder, options);
  if (found.single !== undefined)
    return new Checkpoint(found.folder, [checkFormat(await openWeightFile(found.single, { signal }))]);
  const index = await readShardIndex(found.index, { signal });
  const files: WeightFile[] = [];
  for (const shard of index.shards)
    files.push(checkFormat(await openWeightFile(join(found.folder, shard), { signal })));
  return new Checkpoint(found.folder, files, index);
}

function checkArguments(folder: string, options: OpenCheckpointOptions): void {
  if (typeof folder !== 'string' || folder.trim() === '')
    throw new ConfigError('openCheckpoint', `the folder is ${describeValue(folder)}`, {
      fix: 'give the folder of a model, or one of its weight files',
    });
  assertKnownKeys('openCheckpoint', options, ['baseName', 'variant', 'signal']);
  assertSignal('openCheckpoint', options.signal);
  for (const name of ['baseName', 'variant'] as const)
    if (options[name] !== undefined && typeof options[name] !== 'string')
      throw new ConfigError('openCheckpoint', `${name} is ${describeValue(options[name])}, not a text`);
}
