import { stat } from 'node:fs/promises';
import { isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CheckpointError, ConfigError } from '@q/config';
import { cachedCommit, checkRepoId, checkRevision, isCommit, missingFiles, notCached, repoFolder } from './cache.js';
import { downloadSnapshot, remoteCommit, writeRef, type DownloadProgress, type DownloadRequest } from './download.js';
import { hubEnvironment, hubToken } from './env.js';
import { hubError, isUnreachable } from './errors.js';

export interface ResolveModelOptions {
  /** Branch, tag, commit hash, or (for what is cached) the beginning of one. Default `main`. */
  revision?: string;
  /** Folder of the cache. Default: what HF_HUB_CACHE or HF_HOME say, else ~/.cache/huggingface/hub. */
  cacheDir?: string;
  /** Never use the network. Default: what HF_HUB_OFFLINE says. */
  localFilesOnly?: boolean;
  /** Access token; `false` sends none. Default: HF_TOKEN, or the token that `hf auth login` stored. */
  token?: string | false;
  signal?: AbortSignal;
  onProgress?: (progress: DownloadProgress) => void;
  /** Used for all requests. Default: the global `fetch`. */
  fetch?: typeof fetch;
}

const op = 'hub';

const kindOf = (path: string) =>
  stat(path).then(
    (s) => (s.isDirectory() ? 'folder' : 'file'),
    () => undefined,
  );
const looksLikePath = (text: string) =>
  isAbsolute(text) || /^\.{1,2}([\\/]|$)|^~|\\|^[A-Za-z]:/.test(text) || text.split('/').length > 2;

function filePath(id: string | URL): string | undefined {
  const text = String(id);
  if (text.startsWith('file:')) return fileURLToPath(text);
  if (/^[a-z][a-z0-9+.-]+:\/\//i.test(text))
    throw new ConfigError(op, 'only file: URLs can be given', {
      url: text.replace(/\/\/[^/@]*@/, '//***@'),
      fix: 'give a folder, or an id such as "org/name"',
    });
  return looksLikePath(text) ? resolve(text) : undefined;
}

/** A folder on disk if `id` names one; undefined if it can only be the id of a repository. */
async function localFolder(id: string | URL): Promise<string | undefined> {
  const path = filePath(id);
  const kind = await kindOf(path ?? String(id));
  if (kind === 'folder') return resolve(path ?? String(id));
  if (kind === 'file')
    throw new CheckpointError(op, 'a folder is wanted, this is a file', {
      path: path ?? String(id),
      fix: 'give the folder that holds it',
    });
  if (path !== undefined)
    throw new CheckpointError(op, 'there is no such folder', {
      path,
      fix: 'check the path; an id has the form "org/name"',
    });
  return undefined;
}

/**
 * The folder of a model: a folder on disk, a `file:` URL, a snapshot in the Hugging Face cache, or what is downloaded
 * into that cache. Only configuration, tokenizer and safetensors files are downloaded, and checked by their checksums.
 *
 * A branch or tag is looked up at the hub each time, as in Python; if the hub cannot be reached the cached snapshot is
 * used. A commit hash that is wholly in the cache needs no network.
 * @param idOrPath folder, `file:` URL, or `org/name`
 * @returns absolute path of the folder
 * @throws CheckpointError saying what was looked for, where, and what to do; ConfigError for an impossible id or
 *   revision; `signal.reason` when aborted. Tokens never appear in errors.
 */
export async function resolveModelFolder(idOrPath: string | URL, options: ResolveModelOptions = {}): Promise<string> {
  const { revision = 'main', signal } = options;
  signal?.throwIfAborted();
  const folder = await localFolder(idOrPath);
  if (folder !== undefined) return folder;
  const id = String(idOrPath);
  checkRepoId(id);
  checkRevision(revision);

  const environment = hubEnvironment();
  const cacheDir = resolve(options.cacheDir ?? environment.cacheDir);
  const offline = options.localFilesOnly ?? environment.offline;
  const cached = await lookInCache(cacheDir, id, revision);
  if (cached?.missing.length === 0 && (offline || cached.commit.startsWith(revision))) return cached.folder;
  if (offline) {
    const why = options.localFilesOnly ? 'localFilesOnly is set' : 'HF_HUB_OFFLINE is set';
    throw await notCached(cacheDir, id, revision, cached?.missing, why);
  }
  const token = options.token === false ? undefined : (options.token ?? (await hubToken()));
  if (token !== undefined && !/^hf_\S+$/.test(token))
    throw new ConfigError(op, 'the access token has the wrong form', {
      why: 'tokens begin with hf_',
      fix: 'correct HF_TOKEN or the token option',
    });
  const request: DownloadRequest = {
    id,
    revision,
    cacheDir,
    endpoint: environment.endpoint,
    token,
    fetch: options.fetch ?? fetch,
    signal,
    onProgress: options.onProgress,
  };
  return fetchModel(request, environment.timeoutSeconds, cached);
}

interface Cached {
  commit: string;
  folder: string;
  missing: string[];
}

async function lookInCache(cacheDir: string, id: string, revision: string): Promise<Cached | undefined> {
  const repo = repoFolder(cacheDir, id);
  const commit = await cachedCommit(repo, revision);
  const folder = commit && join(repo, 'snapshots', commit);
  if (!commit || !folder || (await kindOf(folder)) !== 'folder') return undefined;
  return { commit, folder, missing: await missingFiles(folder) };
}

async function fetchModel(
  request: DownloadRequest,
  timeoutSeconds: number,
  cached: Cached | undefined,
): Promise<string> {
  const { id, revision, cacheDir, signal, token, endpoint } = request;
  let commit: string;
  try {
    const timeout = AbortSignal.timeout(timeoutSeconds * 1000);
    commit = isCommit(revision)
      ? revision
      : await remoteCommit({ ...request, signal: signal ? AbortSignal.any([signal, timeout]) : timeout });
  } catch (cause) {
    signal?.throwIfAborted();
    if (!isUnreachable(cause)) throw hubError(cause, { id, revision, endpoint, token });
    if (cached?.missing.length === 0) return cached.folder;
    const clean = hubError(cause, { id, revision, endpoint, token });
    throw await notCached(cacheDir, id, revision, cached?.missing, clean.message, clean);
  }
  try {
    const folder = await downloadSnapshot(request, commit);
    await writeRef(repoFolder(cacheDir, id), revision, commit);
    return folder;
  } catch (cause) {
    signal?.throwIfAborted();
    throw hubError(cause, { id, revision, endpoint, token });
  }
}
