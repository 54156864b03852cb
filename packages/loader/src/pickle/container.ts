// The two containers of torch.save: a zip archive (since PyTorch 1.6), and before it pickles one behind the other with
// the storages after them. Source: torch/serialization.py.
import type { FileHandle } from 'node:fs/promises';
import { CheckpointError, QError, UnsupportedError } from '@q/config';
import type { Entry, RandomAccessReader, ZipFile } from 'yauzl';
import { maxArchiveEntries, maxPickleBytes } from '../limits.js';
import { readInto } from '../small-file.js';
import { PickleFault, PickleRefusal } from './rebuild.js';
import { PickleEnd, unpickle, type Unpickled } from './unpickle.js';
import { Dict, List, type PickleValue, type Storage } from './values.js';

const op = 'checkpoint';

/** Where the data of a storage is. */
export interface Place {
  readonly offset: number;
  readonly bytes: number;
}

/** What a file holds: the pickled object, and where the bytes of its storages are, by key. */
export interface Container {
  readonly value: PickleValue;
  readonly places: ReadonlyMap<string, Place>;
}

export interface OpenFile {
  readonly handle: FileHandle;
  readonly path: string;
  /** Size of the file. */
  readonly bytes: number;
  readonly signal?: AbortSignal;
}

const damaged = ({ path: file }: OpenFile, what: string, why?: string): CheckpointError =>
  new CheckpointError(op, what, { file, ...(why !== undefined && { why }), fix: 'fetch the file again' });

/** Errors that say themselves what is wrong. */
const ours = [QError, PickleFault, PickleRefusal, PickleEnd];

/** Turns what yauzl says of a damaged archive into an error that names the file. */
async function zipped<T>(file: OpenFile, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (ours.some((kind) => cause instanceof kind) || cause === file.signal?.reason) throw cause;
    throw damaged(file, 'the archive of a PyTorch file is damaged', (cause as Error).message.slice(0, 200));
  }
}

/**
 * Opens an archive. yauzl is loaded here alone: bundled programs that open none run without it. It asks for any place
 * that an archive names: one outside the file is an answer, no exception.
 */
async function openArchive({ handle, path, bytes, signal }: OpenFile): Promise<ZipFile> {
  const { fromRandomAccessReaderPromise, RandomAccessReader } = await import('yauzl');
  class ArchiveReader extends RandomAccessReader {
    override read(...[buffer, offset, length, position, callback]: Parameters<RandomAccessReader['read']>): void {
      if (position < 0 || position + length > bytes) return callback(new Error('it names a place outside the file'));
      const target = buffer.subarray(offset, offset + length);
      readInto(handle, path, position, target, signal).then(() => callback(null), callback);
    }

    override close(callback: (error: Error | null) => void): void {
      callback(null); // the handle is its opener's
    }
  }
  return fromRandomAccessReaderPromise(new ArchiveReader(), bytes, { lazyEntries: true, autoClose: false });
}

async function entriesOf(zip: ZipFile, file: OpenFile): Promise<Map<string, Entry>> {
  const entries = new Map<string, Entry>();
  for await (const entry of zip.eachEntry()) {
    file.signal?.throwIfAborted();
    entries.set(entry.fileName, entry);
    if (entries.size > maxArchiveEntries)
      throw damaged(file, 'the archive has too many entries', `the limit is ${maxArchiveEntries}`);
  }
  return entries;
}

/** Where a stored entry lies. @throws CheckpointError for what torch.save does not write */
async function place(zip: ZipFile, entry: Entry, file: OpenFile): Promise<Place> {
  if (entry.compressionMethod !== 0 || entry.isEncrypted())
    throw damaged(file, `${entry.fileName} is compressed or encrypted`, 'PyTorch stores the entries of its archives');
  const { fileDataStart: offset } = await zip.readLocalFileHeaderPromise(entry, { minimal: true });
  const { uncompressedSize: bytes } = entry;
  if (offset + bytes > file.bytes) throw damaged(file, `${entry.fileName} lies outside the file`);
  return { offset, bytes };
}

async function read(zip: ZipFile, entry: Entry, file: OpenFile): Promise<Uint8Array> {
  const { offset, bytes } = await place(zip, entry, file);
  if (bytes > maxPickleBytes)
    throw damaged(file, `${entry.fileName} is absurdly long`, `the limit is ${maxPickleBytes} bytes`);
  const target = new Uint8Array(bytes);
  await readInto(file.handle, file.path, offset, target, file.signal);
  return target;
}

/** The archive that torch.save writes: NAME/data.pkl, NAME/data/KEY, NAME/byteorder. */
export const readArchive = (file: OpenFile): Promise<Container> =>
  zipped(file, async () => {
    const zip = await openArchive(file);
    const entries = await entriesOf(zip, file);
    const pickle = [...entries.keys()].find((name) => /^[^/]+\/data\.pkl$/.test(name));
    if (pickle === undefined) throw damaged(file, 'the zip archive has no data.pkl', 'PyTorch did not write it');
    const folder = pickle.slice(0, -'data.pkl'.length);
    if (entries.has(`${folder}constants.pkl`))
      throw new UnsupportedError(op, 'the file is a TorchScript program, not weights', {
        file: file.path,
        fix: 'save the weights alone: torch.save(model.state_dict(), file)',
      });
    const order = entries.get(`${folder}byteorder`);
    if (order && new TextDecoder().decode(await read(zip, order, file)).trim() !== 'little')
      throw new UnsupportedError(op, 'the numbers of the file are big endian', { file: file.path });
    const { value, storages } = unpickle(await read(zip, entries.get(pickle)!, file));
    const places = new Map<string, Place>();
    for (const key of storages.keys()) {
      file.signal?.throwIfAborted();
      const entry = entries.get(`${folder}data/${key}`);
      if (!entry) throw damaged(file, `the archive has no data of storage ${key.slice(0, 100)}`);
      places.set(key, await place(zip, entry, file));
    }
    return { value, places };
  });

/** Reads pickles one behind the other, taking more of the file when one does not end. */
class PickleStream {
  #bytes = new Uint8Array(0);
  at = 0;

  constructor(private readonly file: OpenFile) {}

  async next(): Promise<Unpickled> {
    for (let room = 1 << 16; ; room *= 4) {
      await this.#fill(room);
      const unpickled = this.#try();
      if (unpickled) {
        this.at += unpickled.bytes;
        return unpickled;
      }
      if (room > maxPickleBytes)
        throw damaged(this.file, 'a pickle is absurdly long', `the limit is ${maxPickleBytes} bytes`);
    }
  }

  /** The pickle that begins at `at`, unless the bytes read so far end before it does. */
  #try(): Unpickled | undefined {
    try {
      return unpickle(this.#bytes.subarray(this.at));
    } catch (error) {
      if (error instanceof PickleEnd && this.#bytes.length < this.file.bytes) return undefined;
      throw error;
    }
  }

  async #fill(room: number): Promise<void> {
    const wanted = Math.min(this.at + room, this.file.bytes);
    if (wanted <= this.#bytes.length) return;
    const bytes = new Uint8Array(wanted);
    bytes.set(this.#bytes);
    const { handle, path, signal } = this.file;
    await readInto(handle, path, this.#bytes.length, bytes.subarray(this.#bytes.length), signal);
    this.#bytes = bytes;
  }
}

/** MAGIC_NUMBER of torch/serialization.py. */
const magic = 0x1950a86a20f9469cfc6cn;

/** What PyTorch wrote before 1.6: magic number, version, system, object, keys; then a length and the data of each. */
export async function readStream(file: OpenFile): Promise<Container> {
  const stream = new PickleStream(file);
  if ((await stream.next()).value !== magic)
    throw new UnsupportedError(op, 'the file is a Python pickle, but not one of torch.save', {
      file: file.path,
      fix: 'save the weights with torch.save(model.state_dict(), file), best as safetensors',
    });
  await stream.next();
  const { value: system } = await stream.next();
  if (system instanceof Dict && system.entries.get('little_endian') === false)
    throw new UnsupportedError(op, 'the numbers of the file are big endian', { file: file.path });
  const { value, storages } = await stream.next();
  const { value: keys } = await stream.next();
  if (!(keys instanceof List)) throw damaged(file, 'the file has no list of its storages');
  return { value, places: await placesBehind(stream.at, keys.items, storages, file) };
}

/** Storages one behind the other from `start` on, each behind the number of its elements (u64). */
async function placesBehind(
  start: number,
  keys: readonly PickleValue[],
  storages: ReadonlyMap<string, Storage>,
  file: OpenFile,
): Promise<Map<string, Place>> {
  const places = new Map<string, Place>();
  const length = new Uint8Array(8);
  let offset = start;
  for (const key of keys) {
    const storage = typeof key === 'string' ? storages.get(key) : undefined;
    if (!storage?.type) throw damaged(file, 'the file lists a storage that its tensors do not name');
    await readInto(file.handle, file.path, offset, length, file.signal);
    const elements = Number(new DataView(length.buffer).getBigUint64(0, true));
    const bytes = elements * storage.type.bytes;
    offset += 8;
    if (offset + bytes > file.bytes) throw damaged(file, 'a storage lies outside the file');
    places.set(storage.key, { offset, bytes });
    offset += bytes;
  }
  return places;
}
