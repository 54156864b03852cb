// Helpers of this package's tests.
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync } from 'node:zlib';
import { openCheckpoint, SafetensorsWriter } from '@q/loader';
import { afterAll } from 'vitest';

type Place = readonly [width: number, offset: number, bytes: number];
type StoredFile = { readonly text: string } | { readonly header: string; readonly parts: readonly Place[] };

interface Index {
  readonly step: number;
  readonly folders: Readonly<Record<string, Readonly<Record<string, StoredFile>>>>;
  readonly expected: Readonly<
    Record<string, Readonly<Record<string, { shape: number[]; values?: number[]; argmax?: number[]; at?: Place }>>>
  >;
}

const read = (name: string): Buffer =>
  brotliDecompressSync(readFileSync(fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))));

/** A JSON fixture. */
export const fixture = <T>(name: string): T => JSON.parse(read(`${name}.json.br`).toString()) as T;

const index = fixture<Index>('index');

/** Bytes whose first ones of each element come first. */
interface Planes {
  readonly width: number;
  readonly bytes: number;
}

interface PackedTensor extends Planes {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
}

interface Pack {
  readonly files: Readonly<Record<string, Buffer>>;
  readonly expected: ReadonlyMap<string, { readonly shape: number[]; readonly values: Float32Array | number[] }>;
}

const packs = new Map<string, Pack>();

/** Bytes whose planes lie one behind the other, as elements. */
function joinPlanes(split: Buffer, width: number): Buffer {
  const count = split.length / width;
  return Buffer.from(Uint8Array.from(split, (_, i) => split[(i % width) * count + Math.floor(i / width)]));
}

/** A checkpoint and its outputs from `fixtures/models`; see scripts/pack-fixtures.mjs for the format. */
function packOf(name: string): Pack {
  const known = packs.get(name);
  if (known) return known;
  const raw = read(`models/${name}.br`);
  let at = 4 + raw.readUInt32LE(0);
  const header = JSON.parse(raw.subarray(4, at).toString()) as {
    files: Record<string, { text: string } | { whole: Planes[] } | { header: string; tensors: PackedTensor[] }>;
    expected: PackedTensor[];
  };
  const bytesOf = ({ width, bytes }: Planes): Buffer => joinPlanes(raw.subarray(at, (at += bytes)), width);
  const files = Object.entries(header.files).map(([file, stored]): [string, Buffer] => {
    if ('text' in stored) return [file, Buffer.from(stored.text)];
    if ('whole' in stored) return [file, Buffer.concat(stored.whole.map(bytesOf))];
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(Buffer.byteLength(stored.header)));
    return [file, Buffer.concat([length, Buffer.from(stored.header), ...stored.tensors.map(bytesOf)])];
  });
  const expected = header.expected.map((tensor): [string, { shape: number[]; values: Float32Array | number[] }] => {
    const { buffer } = new Uint8Array(bytesOf(tensor));
    const values = tensor.dtype === 'I64' ? Array.from(new BigInt64Array(buffer), Number) : new Float32Array(buffer);
    return [tensor.name, { shape: [...tensor.shape], values }];
  });
  const pack = { files: Object.fromEntries(files), expected: new Map(expected) };
  packs.set(name, pack);
  return pack;
}

/** An expected tensor of a pack. */
export const expectedTensor = (model: string, tensor: string) => packOf(model).expected.get(tensor)!;
const planes = new Map<number, Buffer>();

function tensorBytes([width, offset, bytes]: Place): Buffer {
  if (!planes.has(width)) planes.set(width, read(`planes${width}.br`));
  const source = planes.get(width)!;
  const stride = source.length / width;
  const out = Buffer.alloc(bytes);
  for (let i = 0; i < bytes; i++) out[i] = source[(i % width) * stride + offset / width + Math.floor(i / width)];
  return out;
}

function fileBytes(file: StoredFile): Buffer {
  if ('text' in file) return Buffer.from(file.text);
  const header = Buffer.from(file.header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, ...file.parts.map(tensorBytes)]);
}

/** Temporary folders that go away after the test file. */
export function temporaryFolders(): (name?: string) => Promise<string> {
  const root = mkdtemp(join(tmpdir(), 'q-transformers-'));
  let count = 0;
  afterAll(async () => rm(await root, { recursive: true, force: true }));
  return async (name = 'folder') => {
    const folder = join(await root, `${count++}-${name}`);
    await mkdir(folder);
    return folder;
  };
}

/** The files of a checkpoint by name, byte for byte. */
export const checkpointFiles = (name: string): Record<string, Buffer> =>
  name in index.folders
    ? Object.fromEntries(Object.entries(index.folders[name]).map(([file, stored]) => [file, fileBytes(stored)]))
    : { ...packOf(name).files };

/** Writes a checkpoint into the folder and returns the folder; `legacy` uses config.legacy.json as config.json. */
export async function unpackCheckpoint(name: string, folder: string, { legacy = false } = {}): Promise<string> {
  const { 'config.legacy.json': old, ...files } = checkpointFiles(name);
  if (legacy) files['config.json'] = old;
  for (const [file, bytes] of Object.entries(files)) await writeFile(join(folder, file), bytes);
  return folder;
}

function entry(model: string, tensor: string): { shape: number[]; values?: number[]; argmax?: number[]; at?: Place } {
  if (model in index.expected) return index.expected[model][tensor];
  const { shape, values } = expectedTensor(model, tensor);
  return { shape, values: values as number[] };
}

/** An expected integer tensor as rows. */
export function expectedRows(model: string, tensor: string): number[][] {
  const { shape, values } = entry(model, tensor);
  const width = shape[shape.length - 1];
  return Array.from({ length: shape[0] }, (_, row) => values!.slice(row * width, (row + 1) * width));
}

export const expectedNumber = (model: string, tensor: string): number => entry(model, tensor).values![0];

/** Expected logits: every `step`-th column, and the argmax of each position. */
export interface ExpectedLogits {
  readonly shape: readonly number[];
  readonly columns: Float32Array;
  readonly argmax: readonly number[];
}

export function expectedLogits(model: string, tensor: string): ExpectedLogits {
  if (!(model in index.expected)) return fullLogits(expectedTensor(model, tensor));
  const { shape, argmax, at } = entry(model, tensor);
  return { shape, argmax: argmax!, columns: new Float32Array(new Uint8Array(tensorBytes(at!)).buffer) };
}

/** The form of {@link ExpectedLogits} of logits that are there in full. */
function fullLogits({ shape, values }: { shape: number[]; values: Float32Array | number[] }): ExpectedLogits {
  const vocab = shape[shape.length - 1];
  const rows = Array.from({ length: values.length / vocab }, (_, row) =>
    Float32Array.from(values.slice(row * vocab, (row + 1) * vocab)),
  );
  const columns = rows.flatMap((row) => [...row.filter((_, column) => column % index.step === 0)]);
  const argmax = rows.map((row) => row.indexOf(row.reduce((max, value) => Math.max(max, value), -Infinity)));
  return { shape, columns: Float32Array.from(columns), argmax };
}

export interface LogitsComparison {
  /** Largest absolute difference. */
  readonly largest: number;
  /** Frobenius norm of the difference over that of the expected values. */
  readonly relative: number;
  /** Positions whose argmax differs. */
  readonly argmaxDiffers: number;
}

/** Compares logits [positions, vocab] with expected ones; positions where `mask` is 0 are left out. */
export function compareLogits(
  actual: Float32Array,
  expected: ExpectedLogits,
  mask?: readonly number[],
): LogitsComparison {
  const vocab = expected.shape[expected.shape.length - 1];
  const kept = vocab / index.step;
  if (actual.length !== expected.argmax.length * vocab)
    throw new Error(`got ${actual.length} logits, expected ${expected.argmax.length * vocab}`);
  let [largest, difference, norm, argmaxDiffers] = [0, 0, 0, 0];
  expected.argmax.forEach((best, position) => {
    if (mask && mask[position] === 0) return;
    const row = actual.subarray(position * vocab, (position + 1) * vocab);
    if (row.indexOf(row.reduce((max, value) => Math.max(max, value), -Infinity)) !== best) argmaxDiffers += 1;
    for (let i = 0; i < kept; i++) {
      const [got, want] = [row[i * index.step], expected.columns[position * kept + i]];
      largest = Number.isNaN(got) ? Infinity : Math.max(largest, Math.abs(got - want));
      difference += (got - want) ** 2;
      norm += want ** 2;
    }
  });
  return { largest, relative: Math.sqrt(difference / norm), argmaxDiffers };
}

/** A config.json. */
export type Config = Record<string, unknown>;

/** What to change of a fixture. */
export interface Change {
  readonly config?: (config: Config) => void;
  /** New name of a tensor; undefined leaves it out. */
  readonly rename?: (name: string) => string | undefined;
  /** New bytes of a tensor. */
  readonly bytes?: (name: string, bytes: Uint8Array) => Uint8Array;
  /** Tensors to write once more under another name. */
  readonly also?: Readonly<Record<string, string>>;
}

/** A fixture with its config and tensors changed. */
export async function changedCheckpoint(
  name: string,
  temporary: (name?: string) => Promise<string>,
  { config, rename = (each) => each, bytes, also = {} }: Change,
): Promise<string> {
  const folder = await unpackCheckpoint(name, await temporary(name));
  const source = await unpackCheckpoint(name, await temporary(`${name}-source`));
  await using checkpoint = await openCheckpoint(source);
  const writer = new SafetensorsWriter(folder);
  const from = new Map<string, string>();
  const add = (as: string | undefined, of: string) => {
    if (as === undefined) return;
    const { dtype, shape } = checkpoint.tensor(of);
    writer.declare({ name: as, dtype, shape });
    from.set(as, of);
  };
  for (const each of checkpoint.tensors.keys()) add(rename(each), each);
  for (const [as, of] of Object.entries(also)) add(as, of);
  await writer.write(async (spec) => {
    const stored = await checkpoint.read(from.get(spec.name)!);
    return bytes?.(spec.name, stored) ?? stored;
  });
  const json = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Config;
  config?.(json);
  await writeFile(join(folder, 'config.json'), JSON.stringify(json));
  return folder;
}
