// Downloads the files a model needs into the cache, in the layout of huggingface_hub.
import { copyFile, lstat, mkdir, readdir, readlink, rm, stat, symlink } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { CheckpointError, UnsupportedError } from '@q/config';
import { readShardIndex } from '../shard-index.js';
import { assertChecksum, remoteFiles, type RemoteFile, type RepoRequest } from './api.js';
import { ensureBlob, sizeOf } from './blob.js';
import { markAbsent, repoFolder } from './cache.js';
import { hasTokenizer, inFetchOrder, isSmallFileOf, isWeightsOf, weightForms, type ModelFiles } from './file-sets.js';
import { checkStorable } from './paths.js';

export interface DownloadProgress {
  /** File that is being fetched; bytes of it so far and in all. */
  readonly file: string;
  readonly fileBytes: number;
  readonly fileTotalBytes: number;
  /** The same over all files known to be needed. */
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface DownloadRequest extends RepoRequest {
  readonly cacheDir: string;
  readonly files: ModelFiles;
  readonly onProgress?: (progress: DownloadProgress) => void;
}

const op = 'hub';

/** Weight files, by transformers' preference; an index counts with its shards once it was fetched. */
function chooseWeights(
  files: readonly RemoteFile[],
  { id, revision }: DownloadRequest,
): { whole: RemoteFile[]; index?: RemoteFile } {
  const at = (name: string) => files.find(({ path }) => path === name);
  for (const { suffix, names } of weightForms) {
    for (const base of names) {
      const single = at(`${base}${suffix}`);
      if (single) return { whole: [single] };
      const index = at(`${base}${suffix}.index.json`);
      if (index) return { whole: [], index };
    }
    const others = files.filter(({ path }) => isWeightsOf(suffix, path));
    if (others.length > 0) return { whole: others };
  }
  const found = files.filter(({ path }) => /\.(gguf|h5|msgpack|pth)$/.test(path)).map(({ path }) => path);
  throw new UnsupportedError(op, 'the model has no weights in safetensors or of PyTorch', {
    id,
    revision,
    found: found.slice(0, 5),
    fix: 'look for a repository with model.safetensors or pytorch_model.bin',
  });
}

/** Throws for a set whose only reason the repository lacks. */
function checkHasSet(files: readonly RemoteFile[], { files: set, id, revision }: DownloadRequest): void {
  const names = new Set(files.map(({ path }) => path));
  if (set === 'config' && !names.has('config.json'))
    throw new CheckpointError(op, 'the model has no config.json', { id, revision });
  if (set === 'tokenizer' && !hasTokenizer(names))
    throw new CheckpointError(op, 'the model has no tokenizer.json, nor a tokenizer in another form', {
      id,
      revision,
      fix: 'give the id of the repository that holds the tokenizer',
    });
}

/** Downloads what is missing of one commit and returns the folder of its snapshot. */
export async function downloadSnapshot(request: DownloadRequest, commit: string): Promise<string> {
  const { id, files: set, client, cacheDir } = request;
  const listed = await remoteFiles(request, commit);
  checkHasSet(listed, request);
  const snapshot = new Snapshot(request, commit);
  const weights = set === 'model' ? chooseWeights(listed, request) : { whole: [] };
  snapshot.want(inFetchOrder(listed.filter(({ path }) => isSmallFileOf(set, path))), { small: true });
  // All that is known to be wanted is counted before the first byte comes; the shards follow from the index.
  if (weights.index) {
    snapshot.want([weights.index], { small: true });
    await snapshot.get(weights.index);
    snapshot.want(await shardsOf(join(snapshot.folder, weights.index.path), listed, request));
  }
  snapshot.want(weights.whole);
  await snapshot.getAll();
  if (set !== 'config' && !hasTokenizer(new Set(listed.map(({ path }) => path))))
    await markAbsent(repoFolder(cacheDir, id), commit, 'tokenizer.json');
  await sweep(join(repoFolder(cacheDir, id), 'blobs'), client.options.limits.stalePartialMs);
  return snapshot.folder;
}

async function shardsOf(
  index: string,
  files: readonly RemoteFile[],
  { id, revision, client }: DownloadRequest,
): Promise<RemoteFile[]> {
  const shards = new Set((await readShardIndex(index, { signal: client.options.signal })).shards);
  const found = files.filter(({ path }) => shards.has(path));
  for (const { path } of found) shards.delete(path);
  if (shards.size === 0) return found;
  throw new CheckpointError(op, 'the index names shards that the hub does not have', {
    id,
    revision,
    missing: [...shards].slice(0, 20),
  });
}

/** The snapshot of a commit, file by file. */
class Snapshot {
  readonly folder: string;
  readonly #repo: string;
  readonly #wanted: RemoteFile[] = [];
  readonly #got = new Set<RemoteFile>();
  #doneBytes = 0;
  #totalBytes = 0;

  constructor(
    readonly request: DownloadRequest,
    readonly commit: string,
  ) {
    this.#repo = repoFolder(request.cacheDir, request.id);
    this.folder = join(this.#repo, 'snapshots', commit);
  }

  /** Adds files to what is to be fetched, after checking what is said about them. */
  want(files: readonly RemoteFile[], { small = false } = {}): void {
    const { id, client } = this.request;
    const { maxFiles, maxSmallFileBytes } = client.options.limits;
    for (const file of files) {
      checkStorable(file.path, id);
      assertChecksum(file, id);
      if (small && file.size > maxSmallFileBytes)
        throw new CheckpointError(op, 'a file is absurdly long', {
          id,
          file: file.path,
          bytes: file.size,
          why: `the limit is ${maxSmallFileBytes} bytes`,
          fix: 'raise the limit maxSmallFileBytes if this is right',
        });
      this.#wanted.push(file);
      this.#totalBytes += file.size;
    }
    if (this.#wanted.length > maxFiles)
      throw new CheckpointError(op, 'the model has too many files', {
        id,
        files: this.#wanted.length,
        why: `the limit is ${maxFiles}`,
        fix: 'raise the limit maxFiles if this is right',
      });
  }

  async getAll(): Promise<void> {
    for (const file of this.#wanted) if (!this.#got.has(file)) await this.get(file);
  }

  async get(file: RemoteFile): Promise<void> {
    const { id, client, cacheDir } = this.request;
    client.options.signal?.throwIfAborted();
    const pointer = join(this.folder, file.path);
    // A file of another size than listed is the rest of an accident, whatever its name says.
    if ((await sizeOf(pointer)) !== file.size) {
      const blob = join(this.#repo, 'blobs', file.oid);
      await ensureBlob({
        client,
        id,
        file,
        blob,
        url: `${client.options.endpoint}/${id}/resolve/${this.commit}/${file.path.split('/').map(encodeURIComponent).join('/')}`,
        partial: `${blob}${partialEnding}`,
        lock: join(cacheDir, '.locks', `models--${id.replace('/', '--')}`, `${file.oid}.q.lock`),
        onBytes: (bytes) => this.#report(file, bytes),
      });
      await link(blob, pointer);
    }
    this.#report(file, file.size);
    this.#doneBytes += file.size;
    this.#got.add(file);
  }

  #report(file: RemoteFile, fileBytes: number): void {
    this.request.onProgress?.({
      file: file.path,
      fileBytes,
      fileTotalBytes: file.size,
      bytes: this.#doneBytes + fileBytes,
      totalBytes: this.#totalBytes,
    });
  }
}

// Not huggingface_hub's name: it may be writing to its own at the same time.
const partialEnding = '.q.incomplete';

/** Deletes what downloads that nobody went on with left behind. */
async function sweep(blobs: string, olderThanMs: number): Promise<void> {
  const names = (await readdir(blobs).catch(() => [])).filter((name) => name.endsWith(partialEnding));
  for (const path of names.map((name) => join(blobs, name))) {
    const left = await stat(path).catch(() => undefined);
    if (left && Date.now() - left.mtimeMs > olderThanMs) await rm(path, { force: true }).catch(() => undefined);
  }
}

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
