import type { FileHandle } from 'node:fs/promises';
import { otherThanSafetensors } from '../foreign.js';
import { fileError, openRegular, readInto, type FileIdentity } from '../small-file.js';
import type { WeightFile } from '../weight-file.js';
import { headerLength, parseSafetensorsHeader, type SafetensorsHeader } from './header.js';

export { fileError } from '../small-file.js';

/** A safetensors file whose header was read and checked; the data stays on disk. */
export type SafetensorsFile = SafetensorsHeader & WeightFile;

/** Bytes by which other formats are told. */
const headBytes = 512;

/** Reads and checks the header of an open file. */
async function readHeader(
  handle: FileHandle,
  identity: FileIdentity,
  path: string,
  signal?: AbortSignal,
): Promise<SafetensorsFile> {
  const head = new Uint8Array(Math.min(headBytes, identity.bytes));
  await readInto(handle, path, 0, head, signal);
  try {
    const header = new Uint8Array(8 + headerLength(head, identity.bytes, path));
    await readInto(handle, path, 0, header, signal);
    const parsed = parseSafetensorsHeader(header, identity.bytes, path);
    return { path, identity, dataBytes: parsed.bytes - parsed.dataOffset, ...parsed };
  } catch (error) {
    throw otherThanSafetensors(head, path)?.error(path) ?? error;
  }
}

/**
 * Reads the header of a safetensors file, and nothing else.
 * @throws CheckpointError naming the file (and the tensor) when it cannot be read or is not what the format allows;
 *   what is there instead is named: a Git LFS pointer, an HTML page, a GGUF file (UnsupportedError) ...
 */
export async function openSafetensors(path: string, options: { signal?: AbortSignal } = {}): Promise<SafetensorsFile> {
  options.signal?.throwIfAborted();
  const { handle, identity } = await openRegular(path);
  try {
    return await readHeader(handle, identity, path, options.signal);
  } catch (cause) {
    throw fileError(cause, path, 'cannot read a safetensors file');
  } finally {
    await handle.close();
  }
}
