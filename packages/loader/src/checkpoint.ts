import { open, readdir, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { CheckpointError, DisposedError, UnsupportedError } from '@q/config';
import { fileError, openSafetensors, readInto, type SafetensorsFile } from './safetensors/file.js';
import type { TensorEntry, UnsupportedTensorEntry } from './safetensors/header.js';
import { checkShard, readShardIndex, type ShardIndex } from './shard-index.js';

export interface OpenCheckpointOptions {
  /** File name before `.safetensors`: `model`, `adapter_model`, or what a repository uses. Default `model`. */
  baseName?: string;
  /** As transformers' `variant`: `fp16` opens `model.fp16.safetensors`. Default: none. */
  variant?: string;
  signal?: AbortSignal;
}

export interface CheckpointReadOptions {
  signal?: AbortSignal;
}

const op = 'checkpoint';
const exists = (path: string) =>
  stat(path).then(
    (s) => s.isFile(),
    () => false,
  );

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
  /** Oddities that do no harm, such as a wrong `total_size`. */
  readonly warnings: readonly string[];
  #handles = new Map<string, Promise<FileHandle>>();
  #reads = new Set<Promise<void>>();
  #closed = false;

  constructor(
    readonly folder: string,
    readonly files: readonly SafetensorsFile[],
    readonly index?: ShardIndex,
  ) {
    this.tensors = new Map(files.flatMap((file) => [...file.tensors]));
    this.unsupported = new Map(files.flatMap((file) => [...file.unsupported]));
    this.metadata = Object.assign({}, ...files.map((file) => file.metadata)) as Record<string, string>;
    this.dataBytes = files.reduce((sum, file) => sum + file.bytes - file.dataOffset, 0);
    const stated = index?.totalSize;
    this.warnings =
      stated === undefined || stated === this.dataBytes
        ? []
        : [`${index?.path}: metadata.total_size is ${stated}, the shards hold ${this.dataBytes} bytes`];
  }

  /** Whether the checkpoint has a tensor of this name, of whatever element type. */
  has(name: string): boolean {
    return this.tensors.has(name) || this.unsupported.has(name);
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
    throw new CheckpointError(op, 'the checkpoint has no such tensor', {
      tensor: name,
      folder: this.folder,
      files: this.files.length,
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
   * @param target exactly the tensor's bytes if `from` is not given
   */
  async readInto(
    entry: TensorEntry,
    target: Uint8Array,
    options: CheckpointReadOptions & { from?: number } = {},
  ): Promise<void> {
    const { from, signal } = options;
    const start = from ?? 0;
    if (start < 0 || start + target.length > entry.bytes || (from === undefined && target.length !== entry.bytes)) {
      throw new CheckpointError(op, 'the wanted bytes are not those of the tensor', {
        file: entry.file,
        tensor: entry.name,
        from: start,
        wantedBytes: target.length,
        tensorBytes: entry.bytes,
      });
    }
    if (this.#closed) throw new DisposedError(op, 'the checkpoint was closed', { folder: this.folder });
    const reading = this.#open(entry.file).then((handle) =>
      readInto(handle, entry.file, entry.offset + start, target, signal, entry.name),
    );
    this.#reads.add(reading);
    try {
      await reading;
    } catch (cause) {
      throw fileError(cause, entry.file, `cannot read tensor ${entry.name}`);
    } finally {
      this.#reads.delete(reading);
    }
  }

  #open(file: string): Promise<FileHandle> {
    let handle = this.#handles.get(file);
    if (!handle) {
      handle = open(file, 'r');
      this.#handles.set(file, handle);
      handle.catch(() => this.#handles.delete(file));
    }
    return handle;
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

/** What to say about a folder that has none of the wanted files. */
async function nothingFound(folder: string, wanted: readonly string[]): Promise<Error> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (cause) {
    return fileError(cause, folder, 'cannot read the folder of the checkpoint') as Error;
  }
  const bin = names.find((name) => /^(pytorch_model.*|adapter_model)\.bin(\.index\.json)?$/.test(name));
  if (bin && !names.some((name) => name.endsWith('.safetensors'))) {
    return new UnsupportedError(op, 'the checkpoint has only pickled PyTorch weights', {
      folder,
      found: bin,
      why: 'Q reads safetensors',
      fix: 'convert it once in Python: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, safe_serialization=True)',
    });
  }
  const others = names.filter((name) => name.endsWith('.safetensors') || name.endsWith('.safetensors.index.json'));
  return new CheckpointError(op, 'the folder has no checkpoint', {
    folder,
    lookedFor: wanted,
    found: others.slice(0, 10),
    fix: others.length > 0 ? 'give its name as baseName or variant, or open the file itself' : 'check the path',
  });
}

/**
 * The file or index to open: by explicit path, or in a folder the single file before the index, as transformers does.
 */
async function locate(
  path: string,
  options: OpenCheckpointOptions,
): Promise<{ folder: string; single?: string; index?: string }> {
  if (path.endsWith('.safetensors') && (await exists(path))) return { folder: dirname(path), single: path };
  if (path.endsWith('.index.json') && (await exists(path))) return { folder: dirname(path), index: path };
  const { baseName = 'model', variant } = options;
  const dot = variant ? `.${variant}` : '';
  const single = join(path, `${baseName}${dot}.safetensors`);
  const index = join(path, `${baseName}.safetensors.index${dot}.json`);
  if (await exists(single)) return { folder: path, single };
  if (await exists(index)) return { folder: path, index };
  throw await nothingFound(path, [basename(single), basename(index)]);
}

function checkFormat(file: SafetensorsFile): SafetensorsFile {
  const format = file.metadata.format;
  if (format === 'tf' || format === 'flax') {
    throw new UnsupportedError(op, `the checkpoint was written by ${format}`, {
      file: file.path,
      why: 'its matrices are laid out differently',
      fix: 'save it from PyTorch',
    });
  }
  return file;
}

/**
 * Opens the checkpoint in a folder (or one named file): `model.safetensors`, else `model.safetensors.index.json` with
 * its shards. Reads headers only.
 * @throws CheckpointError naming file and tensor for damaged or missing files, and for shards that differ from the
 *   index; UnsupportedError for a folder with only `pytorch_model.bin`; `signal.reason` when aborted.
 */
export async function openCheckpoint(folder: string, options: OpenCheckpointOptions = {}): Promise<Checkpoint> {
  const { signal } = options;
  signal?.throwIfAborted();
  const found = await locate(folder, options);
  if (found.single) return new Checkpoint(found.folder, [checkFormat(await openSafetensors(found.single, { signal }))]);
  const index = await readShardIndex(found.index as string, { signal });
  const files: SafetensorsFile[] = [];
  for (const shard of index.shards) {
    const file = await openSafetensors(join(found.folder, shard), { signal });
    checkShard(index, shard, file.path, new Set([...file.tensors.keys(), ...file.unsupported.keys()]));
    files.push(checkFormat(file));
  }
  return new Checkpoint(found.folder, files, index);
}
