// Downloads the files a model needs into the cache, in the layout of huggingface_hub, with the protocol of
// @huggingface/hub.
import { createHash, randomBytes, type Hash } from 'node:crypto';
import { lstat, mkdir, open, readlink, rename, rm, stat, symlink, writeFile, copyFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import type { ReadableStream } from 'node:stream/web';
import { CheckpointError, UnsupportedError } from '@q/config';
import { readShardIndex } from '../shard-index.js';
import { repoFolder } from './cache.js';
import { hubError } from './errors.js';

export interface DownloadProgress {
  /** File that is being fetched; bytes of it so far and in all. */
  readonly file: string;
  readonly fileBytes: number;
  readonly fileTotalBytes: number;
  /** The same over all files known to be needed. */
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface DownloadRequest {
  readonly id: string;
  readonly revision: string;
  readonly cacheDir: string;
  readonly endpoint: string;
  readonly token: string | undefined;
  readonly fetch: typeof fetch;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: DownloadProgress) => void;
}

interface RemoteFile {
  path: string;
  size: number;
  oid?: string;
  lfs?: { oid: string };
}

const op = 'hub';

/** Arguments that every call of @huggingface/hub gets. */
const common = ({ id, endpoint, token, fetch: inner, signal }: DownloadRequest) => ({
  repo: { type: 'model' as const, name: id },
  hubUrl: endpoint,
  fetch: ((input: Parameters<typeof fetch>[0], init?: RequestInit) =>
    inner(input, { ...init, signal })) as typeof fetch,
  ...(token ? { accessToken: token } : {}),
});

/** The commit that the hub means by a revision. */
export async function remoteCommit(request: DownloadRequest): Promise<string> {
  const { modelInfo } = await import('@huggingface/hub');
  const { repo, ...rest } = common(request);
  const info = (await modelInfo({
    ...rest,
    name: repo.name,
    revision: request.revision,
    additionalFields: ['sha'],
  })) as { sha?: unknown };
  if (typeof info.sha !== 'string' || !/^[0-9a-f]{40}$/.test(info.sha))
    throw new CheckpointError(op, 'the hub gave no commit for a revision', {
      id: request.id,
      revision: request.revision,
    });
  return info.sha;
}

const small = /\.(json|jinja|model|txt|tiktoken)$/;
const notNeeded = /^(README|LICENSE|USE_POLICY|NOTICE)/i;

/** JSON, tokenizer and template files at the top of the repository, without the index of other weight formats. */
const isSmall = ({ path }: RemoteFile) =>
  !path.includes('/') && small.test(path) && !notNeeded.test(path) && !/\.(bin|h5|msgpack)\.index\.json$/.test(path);

/** Weight files, by transformers' preference; an index counts with its shards once it was fetched. */
function chooseWeights(
  files: readonly RemoteFile[],
  request: DownloadRequest,
): { single?: RemoteFile[]; index?: RemoteFile } {
  const at = (name: string) => files.find(({ path }) => path === name);
  for (const base of ['model', 'adapter_model']) {
    const single = at(`${base}.safetensors`);
    if (single) return { single: [single] };
    const index = at(`${base}.safetensors.index.json`);
    if (index) return { index };
  }
  const others = files.filter(({ path }) => path.endsWith('.safetensors') && !path.includes('/'));
  if (others.length > 0) return { single: others };
  const found = files.filter(({ path }) => /\.(bin|gguf|h5|msgpack|pth)$/.test(path)).map(({ path }) => path);
  throw new UnsupportedError(op, 'the model has no safetensors weights', {
    id: request.id,
    revision: request.revision,
    found: found.slice(0, 5),
    fix: 'look for a repository with model.safetensors, or convert it once in Python: AutoModelForCausalLM.from_pretrained(id).save_pretrained(folder)',
  });
}

/** Paths come from the server: only plain relative ones are joined to the cache. */
function checkPath(path: string, id: string): void {
  if (!/[\\\0:]/.test(path) && !path.split('/').some((part) => part === '' || part === '.' || part === '..')) return;
  throw new CheckpointError(op, 'the hub lists a file outside the repository', { id, path });
}

const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  );

/** Links `pointer` to `blob` with a relative path as huggingface_hub does; copies where links are not allowed. */
async function link(blob: string, pointer: string): Promise<void> {
  await mkdir(dirname(pointer), { recursive: true });
  const target = relative(dirname(pointer), blob);
  const old = await lstat(pointer).catch(() => undefined);
  if (old?.isSymbolicLink() && (await readlink(pointer)) === target) return;
  await rm(pointer, { force: true });
  try {
    await symlink(target, pointer);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'EEXIST') return;
    if (code !== 'EPERM' && code !== 'ENOSYS' && code !== 'ENOTSUP') throw cause;
    await copyFile(blob, pointer);
  }
}

/** The digest by which a file is named: sha256 of large files, git's sha1 of "blob SIZE\0" + content of small ones. */
function digest(file: RemoteFile): { hash: Hash; expected: string } | undefined {
  if (file.lfs && /^[0-9a-f]{64}$/.test(file.lfs.oid)) return { hash: createHash('sha256'), expected: file.lfs.oid };
  if (file.oid && /^[0-9a-f]{40}$/.test(file.oid))
    return { hash: createHash('sha1').update(`blob ${file.size}\0`), expected: file.oid };
  return undefined;
}

async function fetchBlob(
  request: DownloadRequest,
  commit: string,
  file: RemoteFile,
  blob: string,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const { downloadFile } = await import('@huggingface/hub');
  const content = await downloadFile({ ...common(request), path: file.path, revision: commit });
  if (!content)
    throw new CheckpointError(op, 'the hub lists a file but does not have it', {
      id: request.id,
      file: file.path,
      revision: commit,
    });
  const incomplete = `${blob}.${randomBytes(6).toString('hex')}.incomplete`;
  const check = digest(file);
  let bytes = 0;
  const handle = await open(incomplete, 'wx');
  try {
    for await (const chunk of content.stream() as ReadableStream<Uint8Array>) {
      request.signal?.throwIfAborted();
      await handle.writeFile(chunk);
      check?.hash.update(chunk);
      bytes += chunk.length;
      onBytes(bytes);
    }
    await handle.close();
    const got = check?.hash.digest('hex');
    if (bytes !== file.size || got !== check?.expected) {
      throw new CheckpointError(op, 'a download is damaged', {
        id: request.id,
        file: file.path,
        bytes,
        expectedBytes: file.size,
        why: bytes === file.size ? 'its checksum differs' : 'its size differs',
        fix: 'try again',
      });
    }
    await rename(incomplete, blob);
  } finally {
    await handle.close();
    await rm(incomplete, { force: true });
  }
}

/** Downloads what is missing of one commit and returns the folder of its snapshot. */
export async function downloadSnapshot(request: DownloadRequest, commit: string): Promise<string> {
  const { listFiles } = await import('@huggingface/hub');
  const { id, cacheDir, signal, onProgress } = request;
  const repo = repoFolder(cacheDir, id);
  const snapshot = join(repo, 'snapshots', commit);
  const files: RemoteFile[] = [];
  for await (const entry of listFiles({ ...common(request), revision: commit, recursive: false })) {
    if (entry.type !== 'file') continue;
    checkPath(entry.path, id);
    files.push(entry);
  }
  const weights = chooseWeights(files, request);
  const wanted = [...files.filter(isSmall), ...(weights.single ?? [])];
  const done = { bytes: 0 };

  const get = async (file: RemoteFile) => {
    const pointer = join(snapshot, file.path);
    const name = file.lfs?.oid ?? file.oid;
    if (!name || !/^[0-9a-f]+$/.test(name))
      throw new CheckpointError(op, 'the hub gave no checksum for a file', { id, file: file.path });
    const blob = join(repo, 'blobs', name);
    const report = (fileBytes: number) =>
      onProgress?.({
        file: file.path,
        fileBytes,
        fileTotalBytes: file.size,
        bytes: done.bytes + fileBytes,
        totalBytes: wanted.reduce((sum, { size }) => sum + size, 0),
      });
    if (!(await exists(pointer))) {
      await mkdir(dirname(blob), { recursive: true });
      if (!(await exists(blob))) await fetchBlob(request, commit, file, blob, report);
      await link(blob, pointer);
    }
    report(file.size);
    done.bytes += file.size;
  };

  if (weights.index) {
    await get(weights.index);
    const { shards } = await readShardIndex(join(snapshot, weights.index.path), { signal });
    const missing = shards.filter((shard) => !files.some(({ path }) => path === shard));
    if (missing.length > 0)
      throw new CheckpointError(op, 'the index names shards that the hub does not have', {
        id,
        revision: request.revision,
        missing,
      });
    wanted.push(...files.filter(({ path }) => shards.includes(path)));
  }
  for (const file of wanted) {
    if (file === weights.index) continue;
    signal?.throwIfAborted();
    try {
      await get(file);
    } catch (cause) {
      signal?.throwIfAborted();
      throw hubError(cause, {
        id,
        revision: request.revision,
        endpoint: request.endpoint,
        file: file.path,
        token: request.token,
      });
    }
  }
  return snapshot;
}

/** Notes in the cache which commit a branch or tag points to. */
export async function writeRef(repo: string, revision: string, commit: string): Promise<void> {
  if (revision === commit) return;
  const path = join(repo, 'refs', ...revision.split('/'));
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${randomBytes(6).toString('hex')}`;
  await writeFile(temporary, commit);
  await rename(temporary, path);
}
