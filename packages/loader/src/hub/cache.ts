// The cache layout of huggingface_hub:
//   models--ORG--NAME/refs/REVISION        text: the commit a branch or tag pointed to
//   models--ORG--NAME/snapshots/COMMIT/... links into blobs
//   models--ORG--NAME/blobs/ETAG           contents, named by sha256 (large files) or git's sha1
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CheckpointError, ConfigError } from '@q/config';
import { readShardIndex } from '../shard-index.js';

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

const isFile = (path: string) =>
  stat(path).then(
    (s) => s.isFile(),
    () => false,
  );

/**
 * Files that a snapshot needs to be loaded but does not have (a broken link counts as missing); empty when complete.
 */
export async function missingFiles(folder: string): Promise<string[]> {
  const missing: string[] = [];
  const names = await readdir(folder).catch(() => undefined);
  if (!names) return ['config.json', 'model.safetensors'];
  const whole = names.filter((name) => name.endsWith('.safetensors'));
  const indexes = names.filter((name) => name.endsWith('.safetensors.index.json'));
  const config = names.includes('adapter_config.json') ? 'adapter_config.json' : 'config.json';
  if (!(await isFile(join(folder, config)))) missing.push(config);
  if (whole.length === 0 && indexes.length === 0) missing.push('model.safetensors');
  for (const name of whole) if (!(await isFile(join(folder, name)))) missing.push(name);
  if (whole.includes('model.safetensors')) return missing;
  for (const name of indexes) {
    if (!(await isFile(join(folder, name)))) {
      missing.push(name);
      continue;
    }
    const { shards } = await readShardIndex(join(folder, name));
    for (const shard of shards)
      if (!missing.includes(shard) && !(await isFile(join(folder, shard)))) missing.push(shard);
  }
  return missing;
}

/** What is known to be in the cache, for error messages. */
export async function describeCache(cacheDir: string, id: string): Promise<Record<string, unknown>> {
  const repo = repoFolder(cacheDir, id);
  const snapshots = await readdir(join(repo, 'snapshots')).catch(() => undefined);
  return snapshots ? { lookedIn: repo, snapshots: snapshots.slice(0, 5) } : { lookedIn: repo };
}

/** The error for a model that is not (wholly) in the cache while the network may not be used. */
export async function notCached(
  cacheDir: string,
  id: string,
  revision: string,
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
