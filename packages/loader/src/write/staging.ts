// How a save replaces what a folder held, as a whole: everything is written beside first; then the folder is marked as
// being changed, old files are put aside and new ones in their places, config.json last.
//
//   .q-save-OWNER/new/...          being written: the folder is untouched
//   .q-save-OWNER.moving/new/...   waiting to be put in place; loading the folder is refused
//   .q-save-OWNER.moving/old/...   put aside; goes when all is done
//
// A kill leaves the old files, or a marked folder without config.json, or the new files; never a mix that loads.
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { CheckpointError } from '@q/config';
import { fileError } from '../small-file.js';
import { abandonedAfterMs, clockToleranceSeconds } from '../limits.js';

const prefix = '.q-save-';
const moving = '.moving';

const thisHost = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);
const processStart = (): number => Math.round(Date.now() / 1000 - process.uptime());

/** A name that tells whose it is: host, process, its start, and a random part. */
const newOwner = (): string =>
  [thisHost, process.pid, processStart().toString(36), randomBytes(4).toString('hex')].join('-');

/** Whether the process that made a staging folder may still be at work. */
function ownerRuns(name: string): boolean {
  const [host, pid, start] = name.slice(name.indexOf(prefix) + prefix.length).split('-');
  if (host !== thisHost) return true; // another machine's, as far as can be told from here
  const id = Number(pid);
  if (id === process.pid) return Math.abs(parseInt(start, 36) - processStart()) <= clockToleranceSeconds;
  try {
    process.kill(id, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

const filesBelow = async (folder: string): Promise<string[]> =>
  (await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []))
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name));

/**
 * Throws CheckpointError for a folder in which a save has begun to replace files and has not ended: what is there may
 * be of two models.
 */
export async function checkNoSaveIsOpen(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  for (const name of names.filter((each) => each.startsWith(prefix) && each.endsWith(moving))) {
    if ((await filesBelow(join(folder, name, 'new'))).length === 0) continue; // only old files are left to clear away
    throw new CheckpointError('checkpoint', 'a save into this folder has not ended', {
      folder,
      staged: name,
      why: 'the process that saved was stopped, or it is at work now: the files here may belong to two models',
      fix: `save again, or move what is in ${name}/old back`,
    });
  }
}

/** Makes what is in a folder last through a power failure, where the system can. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined); // Windows opens no folders
  try {
    await handle?.sync();
  } catch (cause) {
    if (!['EINVAL', 'EPERM', 'ENOTSUP', 'EBADF'].includes((cause as NodeJS.ErrnoException).code ?? '')) throw cause;
  } finally {
    await handle?.close();
  }
}

/** Removes what killed saves left: `.q-save-*` in the folder, and beside it for a folder that did not exist then. */
async function clearStale(folder: string, kind: 'unfinished' | 'moving'): Promise<void> {
  const beside = `${basename(folder)}${prefix}`;
  for (const [place, start] of [
    [folder, prefix],
    [dirname(folder), beside],
  ]) {
    for (const name of await readdir(place).catch(() => [])) {
      if (!name.startsWith(start) || name.endsWith(moving) !== (kind === 'moving')) continue;
      const path = join(place, name);
      const status = await stat(path).catch(() => undefined);
      if (!status?.isDirectory()) continue;
      if (!ownerRuns(name) || Date.now() - status.mtimeMs > abandonedAfterMs)
        await rm(path, { recursive: true, force: true });
    }
  }
}

export interface CommitRules {
  /** The file that makes the folder a checkpoint: put aside first, put in place last. */
  readonly last: string;
  /** Whether a file of an earlier save, which this one does not write, must go. */
  readonly isStale: (name: string) => boolean;
}

/** Where a save writes before it replaces anything. Made by {@link openStaging}; `close` it in any case. */
export class Staging {
  #path: string;

  constructor(
    private readonly folder: string,
    private readonly existed: boolean,
    path: string,
  ) {
    this.#path = path;
  }

  /** Where the new files are to be written, by their names in the folder. */
  get files(): string {
    return join(this.#path, 'new');
  }

  /**
   * Puts the written files in place. When it throws, the folder is as it was.
   * @param names every file that was written, relative to `files`
   */
  async commit(names: readonly string[], rules: CommitRules): Promise<void> {
    await syncFolder(this.files);
    if (this.existed) await this.#replace(names, rules);
    else await rename(this.files, this.folder);
    await syncFolder(this.existed ? this.folder : dirname(this.folder));
  }

  async #replace(names: readonly string[], { last, isStale }: CommitRules): Promise<void> {
    await mkdir(join(this.#path, 'old'));
    const marked = this.#path + moving;
    await rename(this.#path, marked);
    this.#path = marked;
    await syncFolder(this.folder);
    const undo: (() => Promise<void>)[] = [];
    try {
      await this.#aside(last, undo);
      await syncFolder(this.folder);
      for (const name of await readdir(this.folder))
        if (!names.includes(name) && isStale(name)) await this.#aside(name, undo);
      for (const name of names.filter((each) => each !== last)) {
        await this.#aside(name, undo);
        await this.#intoPlace(name, undo);
      }
      await syncFolder(this.folder);
      if (names.includes(last)) await this.#intoPlace(last, undo);
    } catch (error) {
      for (const step of undo.reverse()) await step();
      throw error;
    }
  }

  /** Moves a file of the folder, if there is one, to `old`. */
  async #aside(name: string, undo: (() => Promise<void>)[]): Promise<void> {
    const [from, to] = [join(this.folder, name), join(this.#path, 'old', name)];
    await mkdir(dirname(to), { recursive: true });
    try {
      await rename(from, to);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return;
      throw cause;
    }
    undo.push(() => rename(to, from));
  }

  async #intoPlace(name: string, undo: (() => Promise<void>)[]): Promise<void> {
    const [from, to] = [join(this.files, name), join(this.folder, name)];
    await mkdir(dirname(to), { recursive: true });
    await rename(from, to);
    undo.push(() => rename(to, from));
  }

  /** Removes the staging folder. One that stays holds nothing that is needed, so failing to is no failure. */
  async close(): Promise<void> {
    await rm(this.#path, { recursive: true, force: true }).catch(() => undefined);
  }

  /** Removes what killed saves put aside; to be called after a save that succeeded. */
  async clearAbandoned(): Promise<void> {
    await clearStale(this.folder, 'moving');
  }
}

/**
 * Begins a save into a folder, which need not exist.
 * @throws CheckpointError naming the path when the file system refuses.
 */
export async function openStaging(folder: string): Promise<Staging> {
  try {
    const existed = await stat(folder).then(
      (status) => status.isDirectory(),
      () => false,
    );
    await clearStale(folder, 'unfinished');
    const path = existed ? join(folder, prefix + newOwner()) : `${folder}${prefix}${newOwner()}`;
    await mkdir(join(path, 'new'), { recursive: true });
    return new Staging(folder, existed, path);
  } catch (cause) {
    throw fileError(cause, folder, 'cannot write the checkpoint');
  }
}
