import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CheckpointError, ConfigError, describeValue } from '@q/config';
import { resolveModelFolder } from '@q/loader';
import { nanoFolder } from '@q/nano';

/** Where a model comes from; shared by all `fromPretrained`. */
export interface HubOptions {
  /** Branch, tag or commit. Default `main`. */
  readonly revision?: string;
  /** Folder of the Hugging Face cache. Default: `HF_HUB_CACHE`, `HF_HOME/hub` or `~/.cache/huggingface/hub`. */
  readonly cacheDir?: string;
  /** Use no network. Default false. */
  readonly localFilesOnly?: boolean;
  /** Access token for gated and private models. */
  readonly token?: string;
  readonly signal?: AbortSignal;
}

export const hubOptionNames = ['revision', 'cacheDir', 'localFilesOnly', 'token', 'signal'] as const;

/**
 * The folder of a model: a local path, `@q/nano`, or a Hub id (from the cache, else downloaded).
 * @throws ConfigError unless it is a string with something in it
 */
export async function modelFolder(idOrPath: string, options: HubOptions = {}): Promise<string> {
  if (typeof idOrPath !== 'string' || idOrPath.trim() === '')
    throw new ConfigError('fromPretrained', `the model is ${describeValue(idOrPath)}`, {
      fix: 'give a folder, a Hugging Face id such as "org/name", or "@q/nano"',
    });
  if (idOrPath === '@q/nano') return nanoFolder();
  const { revision, cacheDir, localFilesOnly, token, signal } = options;
  const resolved = await resolveModelFolder(idOrPath, { revision, cacheDir, localFilesOnly, token, signal });
  return typeof resolved === 'string' ? resolved : (resolved as { folder: string }).folder;
}

/** The bytes of a file of the folder; undefined when there is none. */
export async function readBytes(folder: string, name: string): Promise<Buffer | undefined> {
  try {
    return await readFile(join(folder, name));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new CheckpointError('files', `cannot read ${name}`, { folder, cause });
  }
}

/** A text file of the folder; undefined when there is none. */
export const readOptional = async (folder: string, name: string): Promise<string | undefined> =>
  (await readBytes(folder, name))?.toString('utf8');

/** For a file that the folder must have. */
export const missingFile = (folder: string, name: string): CheckpointError =>
  new CheckpointError('files', `${name} is missing`, { folder, fix: 'give the folder of a Hugging Face model' });

/** @throws CheckpointError when the folder has no such file. */
export async function readRequired(folder: string, name: string): Promise<string> {
  const text = await readOptional(folder, name);
  if (text === undefined) throw missingFile(folder, name);
  return text;
}

/** Parses JSON. @throws CheckpointError naming the file. */
export function parseJson(text: string, folder: string, name: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch (cause) {
    throw new CheckpointError('files', `${name} is not valid JSON`, { folder, cause });
  }
  throw new CheckpointError('files', `${name} must hold a JSON object`, { folder });
}
