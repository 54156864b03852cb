// Reads a tokenizer's files by the loader's reader: type and size are looked at first, and what is no such file is
// named.
import { join } from 'node:path';
import { CheckpointError } from '@q/config';
import { readOptionalFile } from '@q/loader';
import { isObject, type Json } from './section.js';

/**
 * The bytes of a file of a folder; undefined when there is none.
 * @throws CheckpointError when it is no plain file, is larger than `limit` bytes, or holds a Git LFS pointer or a web
 *   page; the signal's reason on abort.
 */
export const readTokenizerFile = (
  folder: string,
  name: string,
  limit: number,
  signal?: AbortSignal,
): Promise<Buffer | undefined> => readOptionalFile(join(folder, name), { maxBytes: limit, signal });

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
