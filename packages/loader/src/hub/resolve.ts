import { stat } from 'node:fs/promises';
import { isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CheckpointError, ConfigError } from '@q/config';
import { remoteCommit } from './api.js';
import {
  cachedCommit,
  checkRepoId,
  checkRevision,
  isCommit,
  isMarkedAbsent,
  isReadOnly,
  notCached,
  repoFolder,
  writeRef,
} from './cache.js';
import { HubClient } from './client.js';
import { downloadSnapshot, type DownloadProgress, type DownloadRequest } from './download.js';
import { hubEnvironment, hubToken, type ProxySettings } from './env.js';
import { hubError, type ErrorPlace } from './errors.js';
import { HubFailure, mayUseCache } from './failure.js';
import { missingOf, modelFileSets, type Missing, type ModelFiles } from './file-sets.js';
import { limitsWith } from './limits-with.js';
import { hubLimits, type HubLimits } from '../limits.js';
import { environmentFetch, proxyFor } from './proxy.js';

export interface ResolveModelOptions {
  /** Branch, tag, commit hash, or (for what is cached) the beginning of one. Default `main`. */
  revision?: string;
  /** Folder of the cache. Default: what HF_HUB_CACHE or HF_HOME say, else ~/.cache/huggingface/hub. */
  cacheDir?: string;
  /** Never use the network. Default false; HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE come before it. */
  localFilesOnly?: boolean;
  /** Access token; `false` sends none. Default: HF_TOKEN, or the token that `hf auth login` stored. */
  token?: string | false;
  /** What of the repository is needed. Default `model`. */
  files?: ModelFiles;
  signal?: AbortSignal;
  onProgress?: (progress: DownloadProgress) => void;
  /** Told, in one line each, what was used although it may not be what was asked for. */
  onWarning?: (line: string) => void;
  /** Used for all requests. Default: undici, through the proxies of the environment. */
  fetch?: typeof fetch;
  /** Other limits than those of `hubLimits`: timeouts, retries, sizes. */
  limits?: Partial<HubLimits>;
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
 * into that cache. Only configuration, tokenizer and weight files (safetensors, else PyTorch's own) are downloaded, and
 * checked by their checksums.
 *
 * A branch or tag is looked up at the hub each time, as in Python; if the hub cannot be reached, or does not say, the
 * cached snapshot is used where it is complete. A commit hash that is wholly in the cache needs no network.
 * @param idOrPath folder, `file:` URL, or `org/name`
 * @returns absolute path of the folder
 * @throws CheckpointError saying what was looked for, where, and what to do; ConfigError for options, an impossible id
 *   or revision; `signal.reason` when aborted. Tokens never appear in errors.
 */
export async function resolveModelFolder(idOrPath: string | URL, options: ResolveModelOptions = {}): Promise<string> {
  const { revision = 'main', signal, files = 'model' } = options;
  checkArguments(idOrPath, options);
  signal?.throwIfAborted();
  const environment = hubEnvironment();
  const { metadataTimeoutMs, downloadTimeoutMs } = environment;
  const limits = limitsWith(options.limits, { ...hubLimits, metadataTimeoutMs, downloadTimeoutMs });
  const folder = await localFolder(idOrPath);
  if (folder !== undefined) return folder;
  const id = String(idOrPath);
  checkRepoId(id);
  checkRevision(revision);

  const wanted: Wanted = { id, revision, files, cacheDir: resolve(options.cacheDir ?? environment.cacheDir) };
  const offline = environment.offline || options.localFilesOnly === true;
  const cached = await lookInCache(wanted, offline);
  const usable = complete(cached);
  const pinned = usable?.commit.startsWith(revision) && usable.missing.perhaps.length === 0;
  if (usable && (offline || pinned)) return useCached(usable, undefined, options.onWarning);
  if (offline) {
    const why = environment.offlineBy ?? 'localFilesOnly';
    throw await notCached(wanted, cached?.missing.required, `${why} is set`);
  }
  return askHub(wanted, cached, limits, options);
}

/** Throws ConfigError for what has a wrong type: a plain JavaScript caller has no other warning. */
function checkArguments(idOrPath: unknown, options: ResolveModelOptions): void {
  if (typeof idOrPath !== 'string' && !(idOrPath instanceof URL))
    throw new ConfigError(op, 'a model is named by a string', { got: idOrPath === null ? 'null' : typeof idOrPath });
  const wanted = {
    revision: 'string',
    cacheDir: 'string',
    localFilesOnly: 'boolean',
    fetch: 'function',
    onProgress: 'function',
    onWarning: 'function',
  } as const;
  for (const [name, type] of Object.entries(wanted)) {
    const value: unknown = options[name as keyof typeof wanted];
    if (value !== undefined && typeof value !== type)
      throw new ConfigError(op, `${name} must be a ${type}`, { got: value === null ? 'null' : typeof value });
  }
  if (options.cacheDir?.trim() === '') throw new ConfigError(op, 'cacheDir is empty', { fix: 'give a folder' });
  if (!modelFileSets.includes(options.files ?? 'model'))
    throw new ConfigError(op, 'files is none of the sets', {
      files: options.files,
      fix: `use ${modelFileSets.join(', ')}`,
    });
}

async function askHub(
  wanted: Wanted,
  cached: Cached | undefined,
  limits: HubLimits,
  options: ResolveModelOptions,
): Promise<string> {
  const { signal, onProgress, onWarning } = options;
  const { endpoint: address, proxies } = hubEnvironment();
  const endpoint = checkedEndpoint(address);
  const token = await accessToken(options.token);
  const { fetch: send, close } = options.fetch ? { fetch: options.fetch, close: undefined } : environmentFetch(proxies);
  const client = new HubClient({ endpoint, token, fetch: send, limits, signal });
  const { id, revision } = wanted;
  const place: ErrorPlace = { id, revision, endpoint, ...(!options.fetch && shownProxy(endpoint, proxies)) };
  try {
    return await fetchModel({ ...wanted, client, onProgress, onWarning, place, impatient: false }, cached);
  } finally {
    await close?.();
  }
}

interface Wanted {
  id: string;
  revision: string;
  files: ModelFiles;
  cacheDir: string;
}

interface Cached {
  commit: string;
  folder: string;
  missing: Missing;
}

/** A snapshot that lacks nothing. */
const complete = (cached: Cached | undefined): Cached | undefined =>
  cached?.missing.required.length === 0 ? cached : undefined;

/** The snapshot of a revision in the cache, and what it lacks; undefined when there is none. */
async function lookInCache(wanted: Wanted, offline: boolean, revision = wanted.revision): Promise<Cached | undefined> {
  const repo = repoFolder(wanted.cacheDir, wanted.id);
  const commit = await cachedCommit(repo, revision);
  const folder = commit && join(repo, 'snapshots', commit);
  if (!commit || !folder || (await kindOf(folder)) !== 'folder') return undefined;
  try {
    const { required, perhaps } = await missingOf(folder, wanted.files);
    const known = await Promise.all(perhaps.map((name) => isMarkedAbsent(repo, commit, name)));
    return { commit, folder, missing: { required, perhaps: perhaps.filter((_, i) => !known[i]) } };
  } catch (error) {
    // A damaged index can be fetched again.
    if (offline || !(error instanceof CheckpointError)) throw error;
    return { commit, folder, missing: { required: ['model.safetensors.index.json'], perhaps: [] } };
  }
}

interface FetchRequest extends DownloadRequest {
  readonly place: ErrorPlace;
  readonly onWarning?: (line: string) => void;
}

/** Asks the hub; where it is of no help, what is wholly in the cache stands in. */
async function fetchModel(request: FetchRequest, atFirst: Cached | undefined): Promise<string> {
  const { id, revision, cacheDir, client, place } = request;
  const { signal, token } = client.options;
  let cached = atFirst;
  try {
    const impatient = complete(cached) !== undefined;
    const commit = isCommit(revision) ? revision : await remoteCommit({ ...request, impatient });
    if (cached?.commit !== commit) {
      const same = await lookInCache(request, false, commit);
      cached = complete(same) ?? complete(cached) ?? same ?? cached;
    }
    const folder = await downloadSnapshot({ ...request, impatient: complete(cached) !== undefined }, commit);
    await writeRef(repoFolder(cacheDir, id), revision, commit);
    return folder;
  } catch (cause) {
    signal?.throwIfAborted();
    const error = hubError(cause, place, token);
    if (!mayUseCache(cause) && !isReadOnly(cause)) throw error;
    const usable = complete(cached);
    if (usable) return useCached(usable, error as Error, request.onWarning);
    const away = cause instanceof HubFailure && cause.kind === 'unreachable';
    if (cached || away) throw await notCached(request, cached?.missing.required, (error as Error).message, error);
    throw error;
  }
}

/** A snapshot that may not be the one of the hub, or lack a file that is not always there: said in a line. */
function useCached(
  { folder, commit, missing }: Cached,
  error: Error | undefined,
  warn?: (line: string) => void,
): string {
  if (error) warn?.(`the cached snapshot ${commit} is used, because: ${error.message}`);
  if (missing.perhaps.length > 0)
    warn?.(`the cached snapshot ${commit} has no tokenizer (${missing.perhaps.join(', ')})`);
  return folder;
}

/** The address of the hub. @throws ConfigError for what is none, and for one with a password, which fetch refuses. */
function checkedEndpoint(endpoint: string): string {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  if (url && /^https?:$/.test(url.protocol) && !url.username && !url.password && !url.search && !url.hash)
    return endpoint;
  throw new ConfigError(op, 'HF_ENDPOINT is not the address of a hub', {
    endpoint: endpoint.replace(/\/\/[^/@]*@/, '//***@').replace(/[?#].*/s, ''),
    fix: 'give an address such as https://huggingface.co, without a password; a token goes into HF_TOKEN',
  });
}

/** The token to send. Its form is the hub's affair, if a header can carry it. */
async function accessToken(option: unknown): Promise<string | undefined> {
  if (option === false) return undefined;
  if (option !== undefined && typeof option !== 'string')
    throw new ConfigError(op, 'token is neither a string nor false', { got: typeof option });
  const token = (option ?? (await hubToken()))?.trim();
  if (token === undefined || /^[\x20-\x7e\x80-\xff]+$/.test(token)) return token;
  throw new ConfigError(op, 'the access token cannot be sent', {
    why: token === '' ? 'it is empty' : 'it holds a line break or another character that no header may hold',
    fix: 'correct HF_TOKEN, the stored token or the option token; token: false sends none',
  });
}

/** The proxy between here and the hub, for errors. */
function shownProxy(endpoint: string, proxies: ProxySettings): { proxy?: string } {
  const proxy = proxyFor(new URL(endpoint), proxies);
  return proxy ? { proxy: proxy.origin } : {};
}
