import { open, type FileHandle } from 'node:fs/promises';
import { CheckpointError } from '@q/config';
import { headerLength, parseSafetensorsHeader, type SafetensorsHeader } from './header.js';

/** A safetensors file whose header was read and checked; the data stays on disk. */
export interface SafetensorsFile extends SafetensorsHeader {
  readonly path: string;
}

/** Bytes that one read call asks for: an abort waits for at most this much. */
const chunkBytes = 16 * 1024 * 1024;

/** Turns what the file system says into a CheckpointError naming the file; passes everything else on. */
export function fileError(cause: unknown, path: string, what: string): unknown {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  if (typeof code !== 'string' || !(cause instanceof Error) || !('syscall' in cause)) return cause;
  return new CheckpointError('checkpoint', what, {
    file: path,
    why: code === 'ENOENT' ? 'there is no such file' : cause.message,
    cause,
  });
}

/**
 * Fills `target` from byte `offset` on, in pieces between which `signal` is looked at.
 * @param tensor what is read, for the error
 * @throws CheckpointError when the file ends early; `signal.reason` when aborted.
 */
export async function readInto(
  handle: FileHandle,
  path: string,
  offset: number,
  target: Uint8Array,
  signal?: AbortSignal,
  tensor?: string,
): Promise<void> {
  for (let done = 0; done < target.length;) {
    signal?.throwIfAborted();
    const { bytesRead } = await handle.read(target, done, Math.min(chunkBytes, target.length - done), offset + done);
    if (bytesRead === 0) {
      throw new CheckpointError('checkpoint', 'the file ends early', {
        file: path,
        ...(tensor !== undefined && { tensor }),
        offset,
        wantedBytes: target.length,
        gotBytes: done,
        why: 'it was changed or cut after its header was read',
      });
    }
    done += bytesRead;
  }
  signal?.throwIfAborted();
}

/** Reads and checks the header of an open file. */
export async function readHeader(handle: FileHandle, path: string, signal?: AbortSignal): Promise<SafetensorsFile> {
  const stat = await handle.stat();
  if (!stat.isFile()) throw new CheckpointError('safetensors', 'this is not a file', { file: path });
  const start = new Uint8Array(Math.min(8, stat.size));
  await readInto(handle, path, 0, start, signal);
  const header = new Uint8Array(8 + headerLength(start, stat.size, path));
  await readInto(handle, path, 0, header, signal);
  return { path, ...parseSafetensorsHeader(header, stat.size, path) };
}

/**
 * Reads the header of a safetensors file, and nothing else.
 * @throws CheckpointError naming the file (and the tensor) when it cannot be read or is not what the format allows.
 */
export async function openSafetensors(path: string, options: { signal?: AbortSignal } = {}): Promise<SafetensorsFile> {
  let handle: FileHandle | undefined;
  try {
    options.signal?.throwIfAborted();
    handle = await open(path, 'r');
    return await readHeader(handle, path, options.signal);
  } catch (cause) {
    throw fileError(cause, path, 'cannot read a safetensors file');
  } finally {
    await handle?.close();
  }
}
