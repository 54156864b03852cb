// The one way to open files that come from strangers: what is no regular file (a FIFO waits for ever, a device may have
// no end) or is too long is refused before a byte is read.
import { constants } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import { CheckpointError } from '@q/config';
import { foreignContent } from './foreign.js';
import { maxJsonBytes, readChunkBytes } from './limits.js';

const op = 'checkpoint';

/** What file systems say most, in words. */
const reasons: ReadonlyMap<string, string> = new Map([
  ['ENOENT', 'there is no such file'],
  ['ENOTDIR', 'a part of the path is a file, not a folder'],
  ['EACCES', 'permission denied'],
  ['EPERM', 'the system does not permit it'],
  ['ELOOP', 'symbolic links lead in a circle'],
  ['ENAMETOOLONG', 'the name is too long for the file system'],
  ['EISDIR', 'it is a folder'],
  ['EMFILE', 'this process has too many open files'],
  ['ENFILE', 'the system has too many open files'],
  ['ENOSPC', 'the disk is full'],
  ['EDQUOT', 'the disk quota is used up'],
  ['EROFS', 'the file system is read-only'],
  ['EIO', 'the disk reports an error'],
]);

/**
 * Turns what the file system says into a CheckpointError that names the path; passes everything else on.
 * @param what `cannot read a file`
 */
export function fileError(cause: unknown, path: string, what: string): unknown {
  if (!(cause instanceof Error)) return cause;
  const { code, syscall } = cause as NodeJS.ErrnoException;
  const badPath = code === 'ERR_INVALID_ARG_VALUE' || code === 'ERR_INVALID_ARG_TYPE'; // a path with a NUL, say
  if (typeof code !== 'string' || (syscall === undefined && !badPath)) return cause;
  return new CheckpointError(op, what, {
    file: path,
    why: badPath ? 'this cannot be a path' : (reasons.get(code) ?? cause.message),
    cause,
  });
}

type Kinds = Pick<
  Awaited<ReturnType<typeof stat>>,
  'isFile' | 'isDirectory' | 'isFIFO' | 'isSocket' | 'isBlockDevice' | 'isCharacterDevice'
>;

/** Throws CheckpointError for a folder, FIFO, socket or device. */
function checkRegular(status: Kinds, path: string): void {
  if (status.isFile()) return;
  const kind = status.isDirectory()
    ? 'a folder'
    : status.isFIFO()
      ? 'a FIFO'
      : status.isSocket()
        ? 'a socket'
        : status.isBlockDevice() || status.isCharacterDevice()
          ? 'a device'
          : 'something else';
  throw new CheckpointError(op, 'this is not a file', { file: path, why: `it is ${kind}` });
}

/** Which file, in which state: two of them are equal while nobody has written to it or put another in its place. */
export interface FileIdentity {
  readonly device: bigint;
  readonly inode: bigint;
  readonly bytes: number;
  readonly modifiedNs: bigint;
}

async function identityOf(handle: FileHandle, path: string): Promise<FileIdentity> {
  const status = await handle.stat({ bigint: true });
  checkRegular(status, path);
  return { device: status.dev, inode: status.ino, bytes: Number(status.size), modifiedNs: status.mtimeNs };
}

const same = (a: FileIdentity, b: FileIdentity): boolean =>
  a.device === b.device && a.inode === b.inode && a.bytes === b.bytes && a.modifiedNs === b.modifiedNs;

/**
 * Opens a regular file for reading, without ever waiting for one.
 * @throws CheckpointError naming the path.
 */
export async function openRegular(path: string): Promise<{ handle: FileHandle; identity: FileIdentity }> {
  let handle: FileHandle | undefined;
  try {
    checkRegular(await stat(path), path); // before opening, which acts on some devices
    handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOCTTY ?? 0));
    return { handle, identity: await identityOf(handle, path) };
  } catch (cause) {
    await handle?.close();
    throw fileError(cause, path, 'cannot read a file');
  }
}

/** The identity of the file that lies at this path now. @throws CheckpointError when there is none. */
export async function currentIdentity(path: string): Promise<FileIdentity> {
  const { handle, identity } = await openRegular(path);
  await handle.close();
  return identity;
}

/**
 * Throws CheckpointError unless the file is still what it was.
 * @param since what was done then, for the message: `its header was read`
 * @param tensor what is wanted of it, for the message
 */
export function checkUnchanged(
  was: FileIdentity,
  now: FileIdentity,
  path: string,
  since: string,
  tensor?: string,
): void {
  if (same(was, now)) return;
  const shrank = now.bytes < was.bytes ? 'the file ends early: ' : '';
  throw new CheckpointError(op, `${shrank}the file was changed or replaced since ${since}`, {
    file: path,
    ...(tensor !== undefined && { tensor }),
    bytes: now.bytes,
    wasBytes: was.bytes,
    why: 'what was read from it before does not describe it any more',
    fix: 'let nobody write to the folder while it is loaded, and load again',
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
    const wanted = Math.min(readChunkBytes, target.length - done);
    const { bytesRead } = await handle.read(target, done, wanted, offset + done);
    if (bytesRead === 0) {
      throw new CheckpointError(op, 'the file ends early', {
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

export interface SmallFileOptions {
  /** Most bytes that are read; a longer file is refused. Default 100 MB. */
  maxBytes?: number;
  signal?: AbortSignal;
}

/**
 * The bytes of a small file, read whole.
 * @throws CheckpointError naming the path when it cannot be read, is no regular file or too long, and for a Git LFS
 *   pointer or an HTML page in its place (under a `.json` name any other format as well); `signal.reason` when aborted.
 */
export async function readSmallFile(path: string, options: SmallFileOptions = {}): Promise<Buffer<ArrayBuffer>> {
  const { maxBytes = maxJsonBytes, signal } = options;
  signal?.throwIfAborted();
  const { handle, identity } = await openRegular(path);
  try {
    if (identity.bytes > maxBytes)
      throw new CheckpointError(op, 'the file is absurdly long', {
        file: path,
        bytes: identity.bytes,
        why: `the limit is ${maxBytes} bytes`,
      });
    const bytes = Buffer.alloc(identity.bytes);
    await readInto(handle, path, 0, bytes, signal);
    const foreign = foreignContent(bytes);
    const mayBe = (kind: string) => kind === 'html' && path.endsWith('.jinja'); // a template that writes a page
    const sure = foreign?.kind === 'lfs' || foreign?.kind === 'html' || path.endsWith('.json');
    if (foreign && sure && !mayBe(foreign.kind)) throw foreign.error(path);
    return bytes;
  } catch (cause) {
    throw fileError(cause, path, 'cannot read a file');
  } finally {
    await handle.close();
  }
}

/** As {@link readSmallFile}; undefined when there is no such file. */
export async function readOptionalFile(
  path: string,
  options?: SmallFileOptions,
): Promise<Buffer<ArrayBuffer> | undefined> {
  try {
    return await readSmallFile(path, options);
  } catch (error) {
    const cause = error instanceof CheckpointError ? (error.cause as NodeJS.ErrnoException | undefined) : undefined;
    if (cause?.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Bytes as text, a byte order mark left out. @throws CheckpointError naming the file when it is not UTF-8. */
export function utf8Text(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new CheckpointError(op, 'the file is not UTF-8 text', { file: path, name: basename(path), cause });
  }
}
