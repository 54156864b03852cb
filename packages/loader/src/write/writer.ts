import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { CheckpointError, ConfigError } from '@q/config';
import { fileError } from '../safetensors/file.js';
import { checkSpec, placeTensors, serializeHeader, specBytes, type TensorSpec } from '../safetensors/serialize.js';
import { planShards, type ShardPlan } from './plan.js';
import { parseByteSize } from './size.js';

/** Defaults of SafetensorsWriter. */
export const writerDefaults = { maxShardSize: '5GB', baseName: 'model', metadata: { format: 'pt' } } as const;

export interface WriteProgress {
  /** Tensor that was just written. */
  readonly tensor: string;
  readonly file: string;
  /** Bytes of tensor data written so far and in all. */
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface SafetensorsWriterOptions {
  /** Most bytes of tensor data per file, as a number or as `'5GB'` (10^9) or `'2GiB'` (2^30). Default `'5GB'`. */
  maxShardSize?: string | number;
  /** File name before `.safetensors`. Default `model`; adapters use `adapter_model`. */
  baseName?: string;
  /** `__metadata__` of every file. Default `{ format: 'pt' }`, which transformers asks for. */
  metadata?: Readonly<Record<string, string>>;
  /** `metadata.total_parameters` of the index, which transformers 5 writes. Default: left out. */
  totalParameters?: number;
  signal?: AbortSignal;
  onProgress?: (progress: WriteProgress) => void;
}

/** Gives the data of a declared tensor, at once or in pieces; exactly `specBytes(spec)` bytes. */
export type TensorProducer = (spec: TensorSpec) => Promise<Uint8Array> | Uint8Array | AsyncIterable<Uint8Array>;

const op = 'save';
const pieceBytes = 16 * 1024 * 1024;
const isIterable = (value: unknown): value is AsyncIterable<Uint8Array> =>
  typeof value === 'object' && value !== null && Symbol.asyncIterator in value;

async function writeAll(handle: FileHandle, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    signal?.throwIfAborted();
    done += (await handle.write(bytes, done, Math.min(pieceBytes, bytes.length - done))).bytesWritten;
  }
}

/**
 * Writes a checkpoint folder: declare every tensor, add the JSON files, then `write` with a producer of the data.
 *
 * Files are made under a temporary name beside their place and renamed when all of them are complete, so a failure or
 * an abort leaves the folder as it was. At most one tensor is held in memory (one piece, if the producer gives pieces).
 * Header, order of tensors, shard names and index equal those of safetensors and transformers byte for byte.
 */
export class SafetensorsWriter {
  readonly folder: string;
  #tensors = new Map<string, TensorSpec>();
  #files = new Map<string, Uint8Array>();
  #options: SafetensorsWriterOptions & { baseName: string; maxShardBytes: number };
  #started = false;

  /** @throws ConfigError for a size or a base name that cannot be used. */
  constructor(folder: string, options: SafetensorsWriterOptions = {}) {
    this.folder = resolve(folder);
    const { maxShardSize = writerDefaults.maxShardSize, baseName = writerDefaults.baseName } = options;
    this.#checkFileName(`${baseName}.safetensors`);
    this.#options = { ...options, baseName, maxShardBytes: parseByteSize(maxShardSize) };
  }

  /**
   * Announces a tensor. The order of declarations decides which shard a tensor goes to.
   * @throws ConfigError for a name given twice, or a name, dtype or shape that cannot be written.
   */
  declare(spec: TensorSpec): this {
    checkSpec(spec);
    if (this.#started)
      throw new ConfigError(op, 'tensors must be declared before writing starts', { tensor: spec.name });
    if (this.#tensors.has(spec.name)) throw new ConfigError(op, 'a tensor is declared twice', { tensor: spec.name });
    this.#tensors.set(spec.name, { name: spec.name, dtype: spec.dtype, shape: [...spec.shape] });
    return this;
  }

  /** Adds a small file beside the weights (`config.json`, `tokenizer.json` ...), written together with them. */
  addFile(name: string, content: string | Uint8Array): this {
    this.#checkFileName(name);
    this.#files.set(name, typeof content === 'string' ? new TextEncoder().encode(content) : content);
    return this;
  }

  #checkFileName(name: string): void {
    if (name !== basename(name) || /[\\/\0:]/.test(name) || name === '' || name.startsWith('.'))
      throw new ConfigError(op, 'this is not a plain file name', { name });
  }

  /** Which tensor goes into which file; `write` follows it. */
  plan(): ShardPlan {
    const { maxShardBytes, baseName, totalParameters } = this.#options;
    return planShards([...this.#tensors.values()], { maxShardBytes, baseName, totalParameters });
  }

  /**
   * Writes everything. The producer is called once per tensor, in the order of the files (shard by shard, and inside a
   * shard by falling element width, then by name).
   * @returns names of the files written, weights first.
   * @throws CheckpointError naming file and tensor when data has the wrong size or the disk fails; what the producer
   *   throws; `signal.reason` when aborted. In each case the folder is as before.
   */
  async write(produce: TensorProducer): Promise<string[]> {
    if (this.#started) throw new ConfigError(op, 'this writer was already used', { folder: this.folder });
    this.#started = true;
    const { signal } = this.#options;
    signal?.throwIfAborted();
    const plan = this.plan();
    const existed = await stat(this.folder).then(
      (s) => s.isDirectory(),
      () => false,
    );
    const mark = `q-save-${randomBytes(6).toString('hex')}`;
    const staging = existed ? join(this.folder, `.${mark}`) : `${this.folder}.${mark}`;
    try {
      await mkdir(dirname(staging), { recursive: true });
      await mkdir(staging);
      const names = await this.#stage(staging, plan, produce);
      signal?.throwIfAborted();
      if (existed) await this.#moveIn(staging, names);
      else await rename(staging, this.folder);
      return names;
    } catch (cause) {
      throw fileError(cause, this.folder, 'cannot write the checkpoint');
    } finally {
      await rm(staging, { recursive: true, force: true });
    }
  }

  async #stage(staging: string, plan: ShardPlan, produce: TensorProducer): Promise<string[]> {
    const names: string[] = [];
    const progress = { bytes: 0, totalBytes: plan.totalSize };
    for (const [name, tensors] of plan.shards) {
      await this.#file(staging, name, (handle) => this.#shard(handle, name, tensors, produce, progress));
      names.push(name);
    }
    const small = new Map(this.#files);
    if (plan.index) small.set(plan.index.name, new TextEncoder().encode(plan.index.text));
    for (const [name, content] of small) {
      if (plan.shards.has(name)) throw new ConfigError(op, 'an added file has the name of the weights', { name });
      await this.#file(staging, name, (handle) => writeAll(handle, content, this.#options.signal));
      names.push(name);
    }
    return names;
  }

  async #file(staging: string, name: string, fill: (handle: FileHandle) => Promise<void>): Promise<void> {
    const handle = await open(join(staging, name), 'wx');
    try {
      await fill(handle);
      await handle.datasync();
    } finally {
      await handle.close();
    }
  }

  async #shard(
    handle: FileHandle,
    file: string,
    tensors: readonly TensorSpec[],
    produce: TensorProducer,
    progress: { bytes: number; totalBytes: number },
  ): Promise<void> {
    const { signal, onProgress, metadata = writerDefaults.metadata } = this.#options;
    const placed = placeTensors(tensors);
    await writeAll(handle, serializeHeader(placed, metadata), signal);
    for (const { name, dtype, shape } of placed) {
      signal?.throwIfAborted();
      const spec = { name, dtype, shape };
      await this.#tensor(handle, file, spec, produce);
      progress.bytes += specBytes(spec);
      onProgress?.({ tensor: name, file, ...progress });
    }
  }

  async #tensor(handle: FileHandle, file: string, spec: TensorSpec, produce: TensorProducer): Promise<void> {
    const expectedBytes = specBytes(spec);
    const check = (gotBytes: number, done: boolean) => {
      if (gotBytes > expectedBytes || (done && gotBytes !== expectedBytes)) {
        throw new CheckpointError(op, 'the data of a tensor has the wrong size', {
          file,
          tensor: spec.name,
          gotBytes,
          expectedBytes,
          shape: spec.shape,
          dtype: spec.dtype,
        });
      }
    };
    const data = produce(spec);
    if (isIterable(data)) {
      let got = 0;
      for await (const piece of data) {
        check((got += piece.length), false);
        await writeAll(handle, piece, this.#options.signal);
      }
      check(got, true);
    } else {
      const bytes = await data;
      check(bytes.length, true);
      await writeAll(handle, bytes, this.#options.signal);
    }
  }

  /** Moves finished files into an existing folder, then removes weights of an earlier save that are now stale. */
  async #moveIn(staging: string, names: readonly string[]): Promise<void> {
    for (const name of names) await rename(join(staging, name), join(this.folder, name));
    const base = this.#options.baseName.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
    const ours = new RegExp(`^${base}(-\\d{5}-of-\\d{5})?\\.safetensors(\\.index\\.json)?$`);
    for (const name of await readdir(this.folder)) {
      if (ours.test(name) && !names.includes(name)) await rm(join(this.folder, name));
    }
  }
}
