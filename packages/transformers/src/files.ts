import { join } from 'node:path';
import { assertCallback, CheckpointError, ConfigError, describeValue } from '@q/config';
import {
  checkNoSaveIsOpen,
  loaderLimits,
  readOptionalFile,
  resolveModelFolder,
  type DownloadProgress,
  type HubLimits,
  type ModelFiles,
} from '@q/loader';
import { nanoFolder } from '@q/nano';

/** Where a model comes from; shared by all `fromPretrained`. */
export interface HubOptions {
  /** Branch, tag or commit. Default `main`. */
  readonly revision?: string;
  /** Folder of the Hugging Face cache. Default: `HF_HUB_CACHE`, `HF_HOME/hub` or `~/.cache/huggingface/hub`. */
  readonly cacheDir?: string;
  /** Use no network. Default false; `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE` come before it. */
  readonly localFilesOnly?: boolean;
  /** Access token for gated and private models; `false` sends none. Default: `HF_TOKEN`, or the stored one. */
  readonly token?: string | false;
  /** Used for all requests to the hub. Default: undici, through `HTTPS_PROXY` and the like. */
  readonly fetch?: typeof fetch;
  /** Other timeouts (milliseconds), retries and sizes than those of `hubLimits`. */
  readonly hubLimits?: Partial<HubLimits>;
  /** Told how far downloads are. */
  readonly onDownload?: (progress: DownloadProgress) => void;
  /** Told, in a line each, what is used in place of what was asked for, such as a cached snapshot. */
  readonly onWarning?: (line: string) => void;
  readonly signal?: AbortSignal;
}

export const hubOptionNames = [
  'revision',
  'cacheDir',
  'localFilesOnly',
  'token',
  'fetch',
  'hubLimits',
  'onDownload',
  'onWarning',
  'signal',
] as const;

export interface ModelFolderOptions extends HubOptions {
  /** What is needed: `model`, `settings` (a model without its weights), `tokenizer` or `config`. Default `model`. */
  readonly files?: ModelFiles;
}

/**
 * The folder of a model: a local path, `@q/nano`, or a Hub id (from the cache, else downloaded).
 * @throws ConfigError unless it is a string with something in it; CheckpointError for a folder in which a save has not
 *   ended: its files may belong to two models
 */
export async function modelFolder(idOrPath: string, options: ModelFolderOptions = {}): Promise<string> {
  if (typeof idOrPath !== 'string' || idOrPath.trim() === '')
    throw new ConfigError('fromPretrained', `the model is ${describeValue(idOrPath)}`, {
      fix: 'give a folder, a Hugging Face id such as "org/name", or "@q/nano"',
    });
  if (idOrPath === '@q/nano') return nanoFolder();
  const { revision, cacheDir, localFilesOnly, token, fetch, hubLimits, onDownload, signal, files, onWarning } = options;
  assertCallback('fromPretrained', 'onDownload', onDownload);
  assertCallback('fromPretrained', 'onWarning', onWarning);
  const folder = await resolveModelFolder(idOrPath, {
    revision,
    cacheDir,
    localFilesOnly,
    token,
    fetch,
    limits: hubLimits,
    onProgress: onDownload,
    signal,
    files,
    onWarning,
  });
  await checkNoSaveIsOpen(folder);
  return folder;
}

export interface ReadFileOptions {
  readonly signal?: AbortSignal;
}

const vocabularies =
  /^(tokenizer\.json|vocab.*|merges.*|added_tokens\.json|tekken\.json|.*\.(model|spm|tiktoken|bpe))$/;

/** Most bytes of a file of this name. */
const maxBytesOf = (name: string): number =>
  vocabularies.test(name) ? loaderLimits.maxTokenizerBytes : loaderLimits.maxConfigBytes;

/**
 * The bytes of a small file of the folder; undefined when there is none.
 * @throws CheckpointError naming it when it cannot be read, is no regular file, is too long, or is a Git LFS pointer.
 */
export const readBytes = (
  folder: string,
  name: string,
  { signal }: ReadFileOptions = {},
): Promise<Buffer<ArrayBuffer> | undefined> =>
  readOptionalFile(join(folder, name), { maxBytes: maxBytesOf(name), signal });

/** A text file of the folder; undefined when there is none. @throws as {@link readBytes} */
export const readOptional = async (
  folder: string,
  name: string,
  options?: ReadFileOptions,
): Promise<string | undefined> => (await readBytes(folder, name, options))?.toString('utf8');

/** For a file that the folder must have. */
export const missingFile = (folder: string, name: string): CheckpointError =>
  new CheckpointError('files', `${name} is missing`, { folder, fix: 'give the folder of a Hugging Face model' });

/** @throws CheckpointError when the folder has no such file, and as {@link readBytes}. */
export async function readRequired(folder: string, name: string, options?: ReadFileOptions): Promise<string> {
  const text = await readOptional(folder, name, options);
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
