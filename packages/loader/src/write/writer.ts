import { mkdir, open, type FileHandle } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { CheckpointError, ConfigError } from '@q/config';
import { fileError, readOptionalFile } from '../small-file.js';
import { checkSpec, placeTensors, serializeHeader, specBytes, type TensorSpec } from '../safetensors/serialize.js';
import { planShards, type ShardPlan } from './plan.js';
import { parseByteSize } from './size.js';
import { openStaging } from './staging.js';

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
 * Files are made in a hidden folder beside their places and moved when all of them are complete, so a failure or an
 * abort leaves the folder as it was. While they are moved the folder is marked, and config.json is away: a process that
 * is killed then leaves a folder that loading refuses, never files of two models. The next save clears it.
 *
 * At most one tensor is held in memory (one piece, if the producer gives pieces). Header, order of tensors, shard names
 * and index equal those of safetensors and transformers byte for byte.
 */
export class SafetensorsWriter {
  readonly folder: string;
  #tensors = new Map<string, TensorSpec>();
  #files = new Map<string, Uint8Array>();
  #options: SafetensorsWriterOptions & { baseName: string; maxShardBytes: number };
  #started = false;
  #isStale: (name: string) => boolean = () => false;

  /** @throws ConfigError for a size or a base name that cannot be used. */
  constructor(folder: string, options: SafetensorsWriterOptions = {}) {
    this.folder = resolve(folder);
    const { maxShardSize = writerDefaults.maxShardSize, baseName = writerDefaults.baseName } = options;
    this.#checkFileName(`${baseName}.safetensors`);
    this.#options = { ...options, baseName, maxShardBytes: parseByteSize(maxShardSize, 'maxShardSize') };
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

  /**
   * Adds a small file beside the weights (`config.json`, `tokenizer.json` ...), written together with them.
   * @param name may lie in a folder below, with `/` on every system: `additional_chat_templates/rag.jinja`
   */
  addFile(name: string, content: string | Uint8Array): this {
    for (const part of name.split('/')) this.#checkFileName(part);
    this.#files.set(name, typeof content === 'string' ? new TextEncoder().encode(content) : content);
    return this;
  }

  #checkFileName(name: string): void {
    if (/[\\/\0:]/.test(name) || name === '' || name.startsWith('.'))
      throw new ConfigError(op, 'this is not a plain file name', { name });
  }

  /**
   * Names files of an earlier save that must not stay beside the new ones (a tokenizer's, when another one is written).
   * Those that this save writes are replaced anyway; weights of the same base name always go.
   */
  replaceFiles(isStale: (name: string) => boolean): this {
    this.#isStale = isStale;
    return this;
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
    const staging = await openStaging(this.folder);
    let names: string[];
    try {
      names = await this.#stage(staging.files, plan, produce);
      signal?.throwIfAborted();
      const kept = await this.#keepLast(staging.files, names);
      await staging.commit([...names, ...kept], { last: this.#lastFile(), isStale: (name) => this.#mustGo(name) });
    } catch (cause) {
      throw fileError(cause, this.folder, 'cannot write the checkpoint');
    } finally {
      await staging.close();
    }
    await staging.clearAbandoned();
    return names;
  }

  /** Stages the folder's own config.json when none is written, so that it can be away while the weights change. */
  async #keepLast(staging: string, names: readonly string[]): Promise<string[]> {
    const last = this.#lastFile();
    const kept = names.includes(last) ? undefined : await readOptionalFile(join(this.folder, last));
    if (!kept) return [];
    await this.#file(staging, last, (handle) => writeAll(handle, kept));
    return [last];
  }

  /** The file without which nobody takes the folder for a checkpoint. */
  #lastFile(): string {
    return this.#options.baseName === 'adapter_model' ? 'adapter_config.json' : 'config.json';
  }

  /** Whether a file of an earlier save is stale: weights of our name, and what the caller named. */
  #mustGo(name: string): boolean {
    const { baseName } = this.#options;
    const rest = name.startsWith(baseName) ? name.slice(baseName.length) : '';
    return /^(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/.test(rest) || this.#isStale(name);
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
    const path = join(staging, name);
    await mkdir(dirname(path), { recursive: true });
    const handle = await open(path, 'wx');
    try {
      await fill(handle);
      await handle.sync();
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
}
