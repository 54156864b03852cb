// Helpers of this package's tests.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync } from 'node:zlib';
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
  Object.fromEntries(Object.entries(index.folders[name]).map(([file, stored]) => [file, fileBytes(stored)]));

/** Writes a checkpoint into the folder and returns the folder; `legacy` uses config.legacy.json as config.json. */
export async function unpackCheckpoint(name: string, folder: string, { legacy = false } = {}): Promise<string> {
  const { 'config.legacy.json': old, ...files } = checkpointFiles(name);
  if (legacy) files['config.json'] = old;
  for (const [file, bytes] of Object.entries(files)) await writeFile(join(folder, file), bytes);
  return folder;
}

const entry = (model: string, tensor: string) => index.expected[model][tensor];

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
  const { shape, argmax, at } = entry(model, tensor);
  return { shape, argmax: argmax!, columns: new Float32Array(new Uint8Array(tensorBytes(at!)).buffer) };
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
