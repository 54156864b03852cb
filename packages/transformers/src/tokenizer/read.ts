// Reads a tokenizer's files: type and size are looked at first, and what is no such file at all is named.
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CheckpointError } from '@q/config';
import { isObject, type Json } from './section.js';

/**
 * The bytes of a file of a folder; undefined when there is none.
 * @throws CheckpointError when it is no plain file, is larger than `limit` bytes, or holds a Git LFS pointer or a web
 *   page; the signal's reason on abort.
 */
export async function readTokenizerFile(
  folder: string,
  name: string,
  limit: number,
  signal?: AbortSignal,
): Promise<Buffer | undefined> {
  signal?.throwIfAborted();
  const path = join(folder, name);
  let bytes: Buffer;
  try {
    const { size, ...info } = await stat(path).then((s) => ({ size: s.size, isFile: s.isFile() }));
    if (!info.isFile) throw new CheckpointError('tokenizer', `${name} is not a file`, { folder });
    if (size > limit)
      throw new CheckpointError('tokenizer', `${name} has ${size} bytes, more than ${limit}`, { folder });
    bytes = await readFile(path, { signal });
  } catch (cause) {
    signal?.throwIfAborted();
    if (cause instanceof CheckpointError) throw cause;
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new CheckpointError('tokenizer', `cannot read ${name}`, { folder, cause });
  }
  checkKind(bytes, folder, name);
  return bytes;
}

function checkKind(bytes: Buffer, folder: string, name: string): void {
  const start = bytes.toString('latin1', 0, 256).trimStart();
  if (start.startsWith('version https://git-lfs.github.com/spec/'))
    throw new CheckpointError('tokenizer', `${name} is a Git LFS pointer, not the file itself`, {
      folder,
      fix: 'run `git lfs pull` in the folder, or download the file',
    });
  if (/^(?:\ufeff|\u00ef\u00bb\u00bf)?<(?:!doctype|html|head|\?xml)/i.test(start))
    throw new CheckpointError('tokenizer', `${name} is a web page, not the file itself`, {
      folder,
      fix: 'download the file, not the page about it',
    });
}

/** A JSON object of a folder; undefined when there is no such file. @throws as {@link readTokenizerFile} */
export async function readTokenizerJson(
  folder: string,
  name: string,
  limit: number,
  signal?: AbortSignal,
): Promise<Json | undefined> {
  const bytes = await readTokenizerFile(folder, name, limit, signal);
  if (!bytes) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw new CheckpointError('tokenizer', `${name} is not valid JSON`, { folder, cause });
  }
  if (isObject(value)) return value;
  throw new CheckpointError('tokenizer', `${name} must hold a JSON object`, { folder });
}
