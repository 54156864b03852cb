// From files to a device: what the formats of weights read with.
import { CheckpointError } from '@q/config';
import { cast, isFloat, type Backend, type DType, type FloatDType, type Tensor, type Weight } from '@q/tensor';
import type { Checkpoint } from '../checkpoint.js';
import type { WeightReader } from '../formats/format.js';
import type { TensorEntry } from '../safetensors/header.js';
import { checkUnchanged, currentIdentity } from '../small-file.js';
import { checkFinite, checkQuantized } from './values.js';

export interface FileReaderOptions {
  readonly backend: Backend;
  /** Dtype of dense weights; undefined keeps what the file has. */
  readonly dtype?: FloatDType;
  /** Look for NaN and infinity in what is read. */
  readonly checkFinite?: boolean;
  readonly signal?: AbortSignal;
}

type OpenFile = { readonly id: number; close(): void };

/** Reads tensors of one checkpoint, whose files stay open on the device until {@link close}. */
export class FileReader implements WeightReader {
  readonly #files = new Map<string, OpenFile>();
  /** Looks at what was queued since they were last asked for. */
  #checks: Promise<void>[] = [];

  constructor(
    private readonly checkpoint: Checkpoint,
    private readonly options: FileReaderOptions,
  ) {}

  get backend(): Backend {
    return this.options.backend;
  }

  bytes(entry: TensorEntry): Promise<Uint8Array> {
    return this.checkpoint.read(entry, { signal: this.options.signal });
  }

  load(entry: TensorEntry, shape: readonly number[], dtype: DType): Tensor {
    return this.backend.loadFile(this.#open(entry.file), entry.offset, shape, dtype);
  }

  /** A dense tensor that stays: the file's own pages where the device can use them, else a copy. */
  async dense(entry: TensorEntry, dtype = this.options.dtype): Promise<Tensor> {
    const { backend, signal } = this.options;
    if (this.options.checkFinite) await checkFinite(this.checkpoint, entry, { signal });
    const aligned = entry.elements === 0 || entry.offset % (entry.bytes / entry.elements) === 0;
    if (!isFloat(entry.dtype))
      throw new CheckpointError('load', `a weight is stored as ${entry.dtype}`, {
        file: entry.file,
        tensor: entry.name,
        fix: 'the model wants a float tensor here',
      });
    const parts = await this.#apart(entry);
    if (!dtype || dtype === entry.dtype) {
      if (parts) return this.#upload(backend.allocate(entry.shape, entry.dtype), parts);
      return aligned
        ? backend.mapFile(this.#open(entry.file), entry.offset, entry.shape, entry.dtype)
        : this.load(entry, entry.shape, entry.dtype);
    }
    return backend.scope(() => {
      const out = backend.allocate(entry.shape, dtype);
      backend.submit('cast', { x: this.#temporary(entry, parts).ref(), out: out.ref() });
      return out;
    });
  }

  /** Reads, casts to the model's dtype as Python does before it quantizes, and quantizes. */
  async quantized(entry: TensorEntry, quantize: (dense: Tensor) => Weight): Promise<Weight> {
    const { backend, dtype, signal } = this.options;
    if (this.options.checkFinite) await checkFinite(this.checkpoint, entry, { signal });
    const parts = await this.#apart(entry);
    let weight: Weight | undefined;
    backend.scope(() => {
      const dense = this.#temporary(entry, parts);
      weight = quantize(dtype && dtype !== entry.dtype ? cast(dense, dtype) : dense);
    });
    const check = checkQuantized(entry, weight!);
    check.catch(() => undefined); // it is awaited with the queue
    this.#checks.push(check);
    return weight!;
  }

  async checked(entry: TensorEntry, check?: (entry: TensorEntry, bytes: Uint8Array) => void): Promise<Tensor> {
    const bytes = await this.bytes(entry);
    check?.(entry, bytes);
    const tensor = this.backend.allocate([entry.elements], entry.dtype);
    this.backend.upload(tensor, bytes);
    return tensor;
  }

  async owning<T>(make: (own: <A extends Tensor>(tensor: A) => A) => Promise<T>): Promise<T> {
    const owned: Tensor[] = [];
    try {
      return await make((tensor) => {
        owned.push(tensor.keep());
        return tensor;
      });
    } catch (error) {
      for (const tensor of owned) tensor.dispose();
      throw error;
    }
  }

  /** Fails when a weight that was quantized since the last call was not finite. */
  async checks(): Promise<void> {
    await Promise.all(this.#checks.splice(0));
  }

  /** Throws CheckpointError when a file is not the one any more whose header was read. */
  async checkFiles(): Promise<void> {
    for (const path of this.#files.keys()) {
      const was = this.checkpoint.identity(path);
      if (was) checkUnchanged(was, await currentIdentity(path), path, 'its header was read');
    }
  }

  close(): void {
    for (const file of this.#files.values()) file.close();
  }

  /** The elements of a tensor that are apart in the file, put together; undefined where they are not. */
  async #apart(entry: TensorEntry): Promise<Uint8Array | undefined> {
    return entry.strides && (await this.bytes(entry));
  }

  #upload(tensor: Tensor, bytes: Uint8Array): Tensor {
    this.backend.upload(tensor, bytes);
    return tensor;
  }

  #temporary(entry: TensorEntry, parts: Uint8Array | undefined): Tensor {
    if (parts) return this.#upload(this.backend.empty(entry.shape, entry.dtype), parts);
    return this.backend.loadFile(this.#open(entry.file), entry.offset, entry.shape, entry.dtype, { pooled: true });
  }

  #open(path: string): OpenFile {
    let file = this.#files.get(path);
    if (!file) this.#files.set(path, (file = this.backend.openFile(path) as OpenFile));
    return file;
  }
}
