import { open } from 'node:fs/promises';
import { CheckpointError } from '@q/config';
import { duplicateKey } from './safetensors/duplicates.js';
import { fileError, readInto } from './safetensors/file.js';

/** Largest JSON file that is read (an index of a million tensors is about this long). */
const maxJsonBytes = 100_000_000;

/**
 * Reads a small file as UTF-8 text.
 * @throws CheckpointError naming the file when it cannot be read, is too long or is not UTF-8.
 */
export async function readText(
  path: string,
  options: { maxBytes?: number; signal?: AbortSignal } = {},
): Promise<string> {
  const limit = options.maxBytes ?? maxJsonBytes;
  try {
    const handle = await open(path, 'r');
    try {
      const stat = await handle.stat();
      if (!stat.isFile()) throw new CheckpointError('checkpoint', 'this is not a file', { file: path });
      if (stat.size > limit)
        throw new CheckpointError('checkpoint', 'the file is absurdly long', {
          file: path,
          bytes: stat.size,
          why: `the limit is ${limit} bytes`,
        });
      const bytes = new Uint8Array(stat.size);
      await readInto(handle, path, 0, bytes, options.signal);
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } finally {
      await handle.close();
    }
  } catch (cause) {
    if (cause instanceof TypeError)
      throw new CheckpointError('checkpoint', 'the file is not UTF-8 text', { file: path, cause });
    throw fileError(cause, path, 'cannot read a file');
  }
}

/**
 * Reads a JSON file that holds an object; a key that occurs twice is an error.
 * @throws CheckpointError naming the file.
 */
export async function readJsonObject(
  path: string,
  options: { signal?: AbortSignal } = {},
): Promise<Record<string, unknown>> {
  const text = await readText(path, options);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new CheckpointError('checkpoint', 'the file is not valid JSON', {
      file: path,
      why: (cause as Error).message.slice(0, 200),
      cause,
    });
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new CheckpointError('checkpoint', 'the file does not hold a JSON object', { file: path });
  const twice = duplicateKey(text);
  if (twice !== undefined)
    throw new CheckpointError('checkpoint', 'a JSON object has a key twice', { file: path, key: twice.slice(0, 200) });
  return json as Record<string, unknown>;
}
