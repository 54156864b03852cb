import { createHash, type Hash } from 'node:crypto';
import { constants, open, rm, type FileHandle } from 'node:fs/promises';
import type { RemoteFile } from './api.js';

const readBytes = 1 << 20;

/**
 * A file on its way into the cache. Bytes are written at their place and hashed as they come; what an earlier run left
 * is hashed first and gone on with. Never shortened in place: another process may write the same bytes to it.
 */
export class Partial {
  bytes = 0;
  /** Whether bytes of an earlier run are in it. */
  resumed = false;
  #hash: Hash;
  #handle: FileHandle;

  private constructor(
    readonly path: string,
    readonly file: RemoteFile,
    handle: FileHandle,
  ) {
    this.#handle = handle;
    this.#hash = hashOf(file);
  }

  static async open(path: string, file: RemoteFile, signal?: AbortSignal): Promise<Partial> {
    const partial = new Partial(path, file, await openOrCreate(path));
    try {
      await partial.#takeOver(signal);
    } catch (error) {
      await partial.close();
      throw error;
    }
    return partial;
  }

  async #takeOver(signal?: AbortSignal): Promise<void> {
    const { size } = await this.#handle.stat();
    if (size > this.file.size) return this.restart();
    const buffer = Buffer.alloc(Math.min(size, readBytes));
    while (this.bytes < size) {
      signal?.throwIfAborted();
      const { bytesRead } = await this.#handle.read(buffer, 0, Math.min(buffer.length, size - this.bytes), this.bytes);
      if (bytesRead === 0) break;
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.bytes += bytesRead;
    }
    this.resumed = this.bytes > 0;
  }

  /** Adds bytes at the end. */
  async append(chunk: Uint8Array): Promise<void> {
    for (let done = 0; done < chunk.length;) {
      const { bytesWritten } = await this.#handle.write(chunk, done, chunk.length - done, this.bytes + done);
      done += bytesWritten;
    }
    this.#hash.update(chunk);
    this.bytes += chunk.length;
  }

  /** Begins again with an empty file. */
  async restart(): Promise<void> {
    await this.#handle.close();
    await rm(this.path, { force: true });
    this.#handle = await openOrCreate(this.path);
    this.#hash = hashOf(this.file);
    this.bytes = 0;
    this.resumed = false;
  }

  /** Whether all bytes have the listed checksum. */
  isRight(): boolean {
    return this.bytes === this.file.size && this.#hash.copy().digest('hex') === this.file.oid;
  }

  /** Waits until the bytes are on the disk, not only in its cache. */
  sync(): Promise<void> {
    return this.#handle.sync();
  }

  /** Closes the file; an empty one is removed, any other stays for the next run. */
  async close(): Promise<void> {
    await this.#handle.close();
    if (this.bytes === 0) await this.remove();
  }

  remove(): Promise<void> {
    return rm(this.path, { force: true });
  }
}

/** git names a small file by the sha1 of a header and its content. */
const hashOf = ({ algorithm, size }: RemoteFile): Hash =>
  algorithm === 'sha256' ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);

/** Not truncated: another process may have just begun it. */
const openOrCreate = (path: string): Promise<FileHandle> => open(path, constants.O_RDWR | constants.O_CREAT, 0o666);
