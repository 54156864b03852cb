// The cache layout of huggingface_hub:
//   models--ORG--NAME/refs/REVISION        text: the commit a branch or tag pointed to
//   models--ORG--NAME/snapshots/COMMIT/... links into blobs
//   models--ORG--NAME/blobs/ETAG           contents, named by sha256 (large files) or git's sha1
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CheckpointError, ConfigError } from '@q/config';

const op = 'hub';
const commitHash = /^[0-9a-f]{40}$/;
const shortHash = /^[0-9a-f]{4,39}$/;

/** The folder of a repository inside the cache. */
export const repoFolder = (cacheDir: string, id: string): string =>
  join(cacheDir, ['models', ...id.split('/')].join('--'));

export const isCommit = (revision: string): boolean => commitHash.test(revision);

/** Throws ConfigError for a revision that would leave the folder of refs, or is no revision at all. */
export function checkRevision(revision: string): void {
  const parts = revision.split('/');
  if (
    /^[\w./+@-]+$/.test(revision) &&
    !parts.some((part) => part === '' || part === '.' || part === '..') &&
    !revision.startsWith('-')
  )
    return;
  throw new ConfigError(op, 'this is not a revision', { revision, fix: 'give a branch, a tag or a commit hash' });
}

/** Throws ConfigError unless `id` can be the name of a repository: `name` or `org/name`. */
export function checkRepoId(id: string): void {
  if (
    /^[A-Za-z0-9][\w.-]*(\/[A-Za-z0-9_][\w.-]*)?$/.test(id) &&
    id.length <= 96 &&
    !id.includes('..') &&
    !id.includes('--')
  )
    return;
  throw new ConfigError(op, 'this is neither a folder nor the id of a model', {
    id,
    fix: 'give an existing folder, or an id such as "org/name"',
  });
}

/**
 * The commit that a revision means in the cache: a full hash, what a ref says, or the one snapshot with that short
 * hash.
 */
export async function cachedCommit(repo: string, revision: string): Promise<string | undefined> {
  if (isCommit(revision)) return revision;
  const ref = await readFile(join(repo, 'refs', ...revision.split('/')), 'utf8').catch(() => undefined);
  if (ref !== undefined && commitHash.test(ref.trim())) return ref.trim();
  if (!shortHash.test(revision)) return undefined;
  const snapshots = await readdir(join(repo, 'snapshots')).catch(() => [] as string[]);
  const matches = snapshots.filter((name) => name.startsWith(revision));
  if (matches.length > 1)
    throw new ConfigError(op, 'the short hash means several snapshots', { revision, matches, fix: 'give more digits' });
  return matches[0];
}

/** Notes that a file does not exist at a commit, where and how huggingface_hub does. */
export async function markAbsent(repo: string, commit: string, name: string): Promise<void> {
  const mark = join(repo, '.no_exist', commit, name);
  try {
    await mkdir(dirname(mark), { recursive: true });
    await writeFile(mark, '', { flag: 'a' });
  } catch {
    // The note only saves the next one a question; a cache that takes none is as good.
  }
}

/** Whether a file is known not to exist at a commit. */
export const isMarkedAbsent = (repo: string, commit: string, name: string): Promise<boolean> =>
  stat(join(repo, '.no_exist', commit, name)).then(
    () => true,
    () => false,
  );

/** Whether an error says that the cache may not be written to. */
export const isReadOnly = (error: unknown): boolean =>
  ['EACCES', 'EPERM', 'EROFS'].includes(String((error as NodeJS.ErrnoException | undefined)?.code));

/**
 * Notes in the cache which commit a branch or tag points to, unless that is what it says. In a read-only cache the
 * next look-up without network finds the old commit, which does no harm.
 */
export async function writeRef(repo: string, revision: string, commit: string): Promise<void> {
  if (revision === commit) return;
  const path = join(repo, 'refs', ...revision.split('/'));
  const old = await readFile(path, 'utf8').catch(() => undefined);
  if (old?.trim() === commit) return;
  const temporary = `${path}.${randomBytes(6).toString('hex')}`;
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(temporary, commit);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    if (!isReadOnly(error)) throw error;
  }
}

/** What is known to be in the cache, for error messages. */
export async function describeCache(cacheDir: string, id: string): Promise<Record<string, unknown>> {
  const repo = repoFolder(cacheDir, id);
  const snapshots = await readdir(join(repo, 'snapshots')).catch(() => undefined);
  return snapshots ? { lookedIn: repo, snapshots: snapshots.slice(0, 5) } : { lookedIn: repo };
}

/** The error for a model that is not (wholly) in the cache while the network may not be used. */
export async function notCached(
  { cacheDir, id, revision }: { cacheDir: string; id: string; revision: string },
  missing: readonly string[] | undefined,
  why: string,
  cause?: unknown,
): Promise<CheckpointError> {
  const what = missing ? 'the model is only partly in the cache' : 'the model is not in the cache';
  return new CheckpointError(op, what, {
    id,
    revision,
    ...(missing ? { missing } : {}),
    ...(await describeCache(cacheDir, id)),
    why,
    fix: 'go online once to download it, give the path of a folder, or set cacheDir or HF_HUB_CACHE to where it is',
    cause,
  });
}
