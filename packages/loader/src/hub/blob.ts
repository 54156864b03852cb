// One file from the hub into the cache's blobs: bounded, resumed, checked.
import { mkdir, rename, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { CheckpointError } from '@q/config';
import type { RemoteFile } from './api.js';
import { bodyOf, type HubClient } from './client.js';
import { HubFailure } from './failure.js';
import { withLock } from './lock.js';
import { Partial } from './partial.js';
import { Patience } from './patience.js';
import { Watch } from './watch.js';

export interface BlobRequest {
  readonly client: HubClient;
  readonly id: string;
  readonly url: string;
  readonly file: RemoteFile;
  /** Where the file goes, where it is while it is not whole, and what other processes look at meanwhile. */
  readonly blob: string;
  readonly partial: string;
  readonly lock: string;
  readonly onBytes: (bytes: number) => void;
}

/** Size of a file, or undefined if there is none. */
export const sizeOf = (path: string): Promise<number | undefined> =>
  stat(path).then(
    (s) => (s.isFile() ? s.size : undefined),
    () => undefined,
  );

/** Makes sure that the blob is there, by downloading it or by waiting for the process that does. */
export async function ensureBlob(request: BlobRequest): Promise<void> {
  const { blob, partial, lock, file, onBytes, client } = request;
  const isThere = async () => (await sizeOf(blob)) === file.size;
  if (await isThere()) return;
  await mkdir(dirname(blob), { recursive: true });
  const { signal, limits } = client.options;
  const onWait = async () => onBytes(Math.min((await sizeOf(partial)) ?? 0, file.size));
  await withLock(lock, { staleMs: limits.lockStaleMs, pollMs: limits.lockPollMs, signal, onWait }, async () => {
    if (!(await isThere())) await download(request);
  });
}

async function download(request: BlobRequest): Promise<void> {
  const { file, client, id, partial } = request;
  const { signal } = client.options;
  const part = await Partial.open(partial, file, signal);
  try {
    for (;;) {
      await fill(part, request);
      if (part.isRight()) break;
      const { resumed } = part;
      await part.restart();
      // What an earlier run left may have been of something else: once more from the beginning.
      if (!resumed)
        throw new CheckpointError('hub', 'a download is damaged', {
          id,
          file: file.path,
          bytes: file.size,
          why: 'its checksum differs',
          fix: 'try again',
        });
    }
    await part.sync();
    await rename(partial, request.blob);
  } catch (error) {
    if (error instanceof CheckpointError) await part.restart();
    throw error;
  } finally {
    await part.close();
  }
}

/** Fetches what a partial file lacks, with retries. */
async function fill(part: Partial, request: BlobRequest): Promise<void> {
  const { client, file } = request;
  const { limits, signal } = client.options;
  const patience = new Patience(limits, { signal, anyLoss: true });
  while (part.bytes < file.size) {
    const before = part.bytes;
    try {
      await fetchRest(part, request);
    } catch (error) {
      if (part.bytes - before >= limits.minProgressBytes) patience.forgive();
      await patience.after(error);
    }
  }
}

async function fetchRest(part: Partial, { client, url, file, id, onBytes }: BlobRequest): Promise<void> {
  const { downloadTimeoutMs: idleMs, minProgressBytes: minBytes } = client.options.limits;
  using watch = new Watch({ idleMs, minBytes }, client.options.signal);
  // Compressed, the bytes of a range would be those of another file.
  const headers = { 'accept-encoding': 'identity', ...(part.bytes > 0 && { range: `bytes=${part.bytes}-` }) };
  const response = await client.open(url, headers, watch);
  if (!continues(response, part)) {
    if (response.status !== 200) {
      const what = `status ${response.status}, content-range ${response.headers.get('content-range')}`;
      // Without a range it is another request, so the next try may succeed.
      const transient = part.bytes > 0;
      await part.restart();
      throw new HubFailure('answer', `the hub does not send the part that was asked for (${what})`, { transient });
    }
    // A server without ranges sends the whole.
    if (part.bytes > 0) await part.restart();
  }
  for await (const chunk of bodyOf(response, watch)) {
    if (part.bytes + chunk.length > file.size)
      throw new CheckpointError('hub', 'the hub sends more of a file than it lists', {
        id,
        file: file.path,
        listedBytes: file.size,
        fix: 'do not use this model, or try again later',
      });
    await part.append(chunk);
    onBytes(part.bytes);
  }
  if (part.bytes < file.size)
    throw new HubFailure('unreachable', `the download ended after ${part.bytes} of ${file.size} bytes`, {
      transient: true,
    });
}

/** Whether an answer is the rest of the file from where the partial one ends. */
function continues({ status, headers }: Response, { bytes, file }: Partial): boolean {
  if (status !== 206 || bytes === 0) return false;
  const match = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers.get('content-range') ?? '');
  return match !== null && Number(match[1]) === bytes && (match[3] === '*' || Number(match[3]) === file.size);
}
