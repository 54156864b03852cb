// What the hub says it has, through @huggingface/hub; the client beneath it decides what goes out and how much comes
// in.
import { CheckpointError } from '@q/config';
import type { HubClient } from './client.js';
import { HubFailure } from './failure.js';
import { templateFolder } from './file-sets.js';
import { checkListedPath } from './paths.js';
import { Patience } from './patience.js';

/** A file of a repository, as listed and checked. */
export interface RemoteFile {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** The checksum that names it: sha256 of large files, git's sha1 of small ones. */
  readonly oid: string;
  readonly algorithm: 'sha256' | 'sha1';
}

export interface RepoRequest {
  readonly client: HubClient;
  readonly id: string;
  readonly revision: string;
  /** Whether something else is at hand should the hub not answer: then there is little waiting. */
  readonly impatient: boolean;
}

const op = 'hub';

/** With a whole snapshot in the cache one more try, soon, is enough. */
const patienceFor = ({ client: { options }, impatient }: RepoRequest) =>
  new Patience(options.limits, {
    signal: options.signal,
    ...(impatient && {
      maxRetries: Math.min(1, options.limits.maxRetries),
      maxPauseMs: options.limits.backoffMs,
    }),
  });

const common = (request: RepoRequest) => ({
  hubUrl: request.client.options.endpoint,
  fetch: request.client.metadataFetch(patienceFor(request)),
});

/** What the library throws over an answer that it does not understand is a fault of the answer. */
async function understood<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError || error instanceof RangeError)
      throw new HubFailure('answer', `the answer is not what a hub sends: ${error.message.slice(0, 200)}`);
    throw error;
  }
}

/** The commit that the hub means by a revision. */
export async function remoteCommit(request: RepoRequest): Promise<string> {
  const { modelInfo } = await import('@huggingface/hub');
  const { id, revision } = request;
  const info = await understood(() => modelInfo({ ...common(request), name: id, revision, additionalFields: ['sha'] }));
  const { sha } = info as { sha?: unknown };
  if (typeof sha !== 'string' || !/^[0-9a-f]{40}$/.test(sha))
    throw new CheckpointError(op, 'the hub gave no commit for a revision', { id, revision });
  return sha;
}

/** The files of a commit at the top of the repository, and its named chat templates. */
export async function remoteFiles(request: RepoRequest, commit: string): Promise<RemoteFile[]> {
  const { listFiles } = await import('@huggingface/hub');
  const repo = { type: 'model' as const, name: request.id };
  // One `fetch` for both lists, so that the limits hold for them together.
  const access = common(request);
  const files: RemoteFile[] = [];
  const list = async (path?: string): Promise<boolean> => {
    let hasTemplates = false;
    for await (const entry of listFiles({ ...access, repo, revision: commit, path })) {
      if (entry.type === 'directory') hasTemplates ||= entry.path === templateFolder;
      else if (entry.type === 'file') files.push(checkedEntry(entry, request.id));
    }
    return hasTemplates;
  };
  await understood(async () => {
    if (await list()) await list(templateFolder);
  });
  return files;
}

/** An entry of a list. Its checksum is looked at when the file is wanted. */
function checkedEntry(entry: { path?: unknown; size?: unknown; oid?: unknown; lfs?: unknown }, id: string): RemoteFile {
  const { path, oid } = entry;
  const lfs = typeof entry.lfs === 'object' ? (entry.lfs as { oid?: unknown; size?: unknown } | null) : undefined;
  const size = lfs ? (lfs.size ?? entry.size) : entry.size;
  if (typeof path !== 'string') throw new HubFailure('answer', 'the hub lists a file without a name');
  checkListedPath(path, id);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw new CheckpointError(op, 'the hub lists a file without a size', { id, file: path });
  return { path, size, oid: String(lfs ? lfs.oid : oid), algorithm: lfs ? 'sha256' : 'sha1' };
}

/** Throws unless the checksum of a file is one: what cannot be checked is not downloaded. */
export function assertChecksum({ path, oid, algorithm }: RemoteFile, id: string): void {
  if ((algorithm === 'sha256' ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(oid)) return;
  throw new CheckpointError(op, 'the hub gave no checksum for a file', {
    id,
    file: path,
    why: `a ${algorithm} of ${algorithm === 'sha256' ? 64 : 40} digits is wanted`,
  });
}
