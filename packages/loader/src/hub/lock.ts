// A lock between processes, as a file that its owner touches. Node has no flock. Work under it must stay right if two
// owners meet after all (a machine that slept): the lock saves work, it does not guard it.
import { randomBytes } from 'node:crypto';
import { link, mkdir, open, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname } from 'node:path';
import { pause } from './watch.js';

export interface LockOptions {
  readonly staleMs: number;
  readonly pollMs: number;
  readonly signal?: AbortSignal;
  /** Called at each look while another one holds the lock. */
  readonly onWait?: () => Promise<void>;
}

interface Owner {
  readonly pid: number;
  readonly host: string;
  readonly nonce: string;
}

const codeOf = (error: unknown) => (error as NodeJS.ErrnoException | undefined)?.code;
const mayNotWrite = (error: unknown) => ['EACCES', 'EPERM', 'EROFS', 'ENOSYS', 'ENOTSUP'].includes(codeOf(error) ?? '');

/** Runs `work` while no other process runs its own under the same path; without a lock where none can be made. */
export async function withLock<T>(path: string, options: LockOptions, work: () => Promise<T>): Promise<T> {
  const mine: Owner = { pid: process.pid, host: hostname(), nonce: randomBytes(12).toString('hex') };
  const taken = await acquire(path, mine, options).catch((error: unknown) => {
    if (mayNotWrite(error)) return false;
    throw error;
  });
  if (!taken) return work();
  const touch = () => void utimes(path, new Date(), new Date()).catch(() => undefined);
  const heart = setInterval(touch, options.staleMs / 5).unref();
  try {
    return await work();
  } finally {
    clearInterval(heart);
    if ((await ownerOf(path))?.nonce === mine.nonce) await rm(path, { force: true });
  }
}

async function acquire(path: string, mine: Owner, { staleMs, pollMs, signal, onWait }: LockOptions): Promise<boolean> {
  await mkdir(dirname(path), { recursive: true });
  let seen: { mark: string; since: number } | undefined;
  for (;;) {
    signal?.throwIfAborted();
    if (await create(path, mine)) return true;
    const owner = await ownerOf(path);
    const mark = `${owner?.nonce} ${await touchedAt(path)}`;
    // By this machine's clock alone: those of a network drive may differ.
    if (seen?.mark !== mark) seen = { mark, since: performance.now() };
    if (isDead(owner) || performance.now() - seen.since > staleMs) await takeAway(path, owner);
    else {
      await onWait?.();
      await pause(pollMs, signal);
    }
  }
}

async function create(path: string, mine: Owner): Promise<boolean> {
  try {
    const handle = await open(path, 'wx');
    try {
      await handle.writeFile(JSON.stringify(mine));
    } finally {
      await handle.close();
    }
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  }
}

/** Who wrote a lock; undefined while it is written, or when it is gone. */
async function ownerOf(path: string): Promise<Owner | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Owner;
  } catch {
    return undefined;
  }
}

const touchedAt = (path: string) =>
  stat(path).then(
    ({ mtimeMs }) => mtimeMs,
    () => 0,
  );

/** Whether the owner was a process of this machine that is gone. */
function isDead(owner: Owner | undefined): boolean {
  if (owner?.host !== hostname() || !Number.isSafeInteger(owner.pid) || owner.pid <= 0) return false;
  try {
    process.kill(owner.pid, 0);
    return false;
  } catch (error) {
    return codeOf(error) === 'ESRCH';
  }
}

/** Removes a lock without owner. Should it be another one's by now, that one gets it back. */
async function takeAway(path: string, stale: Owner | undefined): Promise<void> {
  const aside = `${path}.${randomBytes(6).toString('hex')}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return;
    throw error;
  }
  const moved = await ownerOf(aside);
  if (moved && moved.nonce !== stale?.nonce) await link(aside, path).catch(() => undefined);
  await rm(aside, { force: true });
}
