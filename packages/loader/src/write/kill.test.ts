// Saving over a checkpoint, killed at every step that changes the folder: what is left loads as the old model, as the
// new one, or not at all.
import { spawn } from 'node:child_process';
import { cp, mkdir, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import type * as fileSystem from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build as esbuild } from 'esbuild';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { CheckpointError } from '@q/config';
import { openCheckpoint } from '../checkpoint.js';
import { temporary } from '../testing.js';
import type { TensorSpec } from '../safetensors/serialize.js';
import { SafetensorsWriter } from './writer.js';

type FileSystem = typeof fileSystem;

let onRename: (() => Promise<void>) | undefined;
vi.mock('node:fs/promises', async (original) => {
  const real = await original<FileSystem>();
  const rename = async (from: string, to: string) => {
    await onRename?.();
    return real.rename(from, to);
  };
  return { ...real, rename, default: { ...real, rename } };
});
const { rename: renameNow } = await vi.importActual<FileSystem>('node:fs/promises');

const temp = temporary();

/** Tensors as bitsandbytes names them: odd models are of int8, even ones of nf4. All have 40 bytes. */
const tensorsOf = (model: number): TensorSpec[] =>
  ['a', 'b', 'c'].flatMap((module): TensorSpec[] =>
    model % 2 === 1
      ? [
          { name: `${module}.weight`, dtype: 'i8', shape: [4, 10] },
          { name: `${module}.SCB`, dtype: 'f32', shape: [10] },
        ]
      : [
          { name: `${module}.weight`, dtype: 'u8', shape: [40, 1] },
          { name: `${module}.weight.absmax`, dtype: 'f32', shape: [10] },
          { name: `${module}.weight.quant_state.bitsandbytes__nf4`, dtype: 'u8', shape: [40] },
        ],
  );
const filesOf = (model: number): [name: string, content: string][] => [
  ['config.json', JSON.stringify({ model, quantization_config: { load_in_8bit: model % 2 === 1 } })],
  ['tokenizer.json', JSON.stringify({ model })],
];

/** A model is told by a number: in every tensor, in config.json and in its tokenizer. */
function writerFor(folder: string, model: number, maxShardSize: number): SafetensorsWriter {
  const writer = new SafetensorsWriter(folder, { maxShardSize });
  for (const spec of tensorsOf(model)) writer.declare(spec);
  for (const file of filesOf(model)) writer.addFile(...file);
  return writer.replaceFiles((name) => name.startsWith('tokenizer') || name === 'extra.txt');
}
const dataOf = (model: number) => () => new Uint8Array(40).fill(model);

/** Which model a folder holds; throws where it is not one. */
async function modelIn(folder: string): Promise<number> {
  const { model } = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as { model: number };
  await using checkpoint = await openCheckpoint(folder);
  const seen = new Set([model]);
  expect([...checkpoint.tensors.keys()].sort()).toEqual(
    tensorsOf(model)
      .map(({ name }) => name)
      .sort(),
  );
  for (const name of checkpoint.tensors.keys()) for (const byte of await checkpoint.read(name)) seen.add(byte);
  const tokenizer = JSON.parse(await readFile(join(folder, 'tokenizer.json'), 'utf8')) as { model: number };
  seen.add(tokenizer.model);
  expect([...seen]).toHaveLength(1);
  return model;
}

interface Kill {
  readonly folder: string;
  readonly shard: number;
  /** The number of the rename before which the process is killed. */
  readonly at: number;
}

/** The text of a program that saves model 2 and kills itself before one of its renames. */
const program = (writer: string): string => `
  import fs from 'node:fs';
  import { syncBuiltinESMExports } from 'node:module';
  const { folder, shard, at, tensors, files } = JSON.parse(process.argv[2]);
  const { rename } = fs.promises;
  let count = 0;
  fs.promises.rename = async (from, to) => {
    if (++count === at) { process.kill(process.pid, 'SIGKILL'); await new Promise(() => {}); }
    return rename(from, to);
  };
  syncBuiltinESMExports();
  const { SafetensorsWriter } = await import(${JSON.stringify(writer)});
  const writer = new SafetensorsWriter(folder, { maxShardSize: shard });
  for (const spec of tensors) writer.declare(spec);
  for (const file of files) writer.addFile(...file);
  writer.replaceFiles((name) => name.startsWith('tokenizer') || name === 'extra.txt');
  await writer.write(() => new Uint8Array(40).fill(2));`;

let programPath = '';
beforeAll(async () => {
  const writer = join(await temp.sub('program'), 'writer.mjs');
  const entryPoints = [fileURLToPath(new URL('writer.ts', import.meta.url))];
  await esbuild({ entryPoints, outfile: writer, bundle: true, platform: 'node', format: 'esm', logLevel: 'error' });
  programPath = join(temp.path, 'program', 'save.mjs');
  await writeFile(programPath, program(writer));
}, 60_000);

/** Saves model 2 in a process of its own. @returns whether it was killed before it had ended */
async function saveKilled(kill: Kill): Promise<boolean> {
  const argument = JSON.stringify({ ...kill, tensors: tensorsOf(2), files: filesOf(2) });
  const child = spawn(process.execPath, [programPath, argument], { stdio: ['ignore', 'ignore', 'inherit'] });
  const [code, signal] = await new Promise<unknown[]>((resolve) => child.on('close', (...end) => resolve(end)));
  expect([code, signal]).toEqual(signal === null ? [0, null] : [null, 'SIGKILL']);
  return signal !== null;
}

/** Model 1 in a folder, with files that a save of model 2 must remove and one that it must leave. */
async function oldModel(name: string, shard: number): Promise<string> {
  const folder = join(await temp.sub(name), 'model');
  await mkdir(folder);
  await writerFor(folder, 1, shard).write(dataOf(1));
  await writeFile(join(folder, 'tokenizer.model'), 'of model 1');
  await writeFile(join(folder, 'extra.txt'), 'of model 1');
  await writeFile(join(folder, 'README.md'), 'mine');
  return folder;
}
const stagings = async (folder: string) => (await readdir(folder)).filter((name) => name.startsWith('.q-save-'));

/** What a killed process would leave: the folder as it is now, and its staging folder a dead process'. */
async function asKilled(folder: string, to: string): Promise<void> {
  await cp(folder, to, { recursive: true });
  const own = new RegExp(`-${process.pid}-`);
  for (const name of await stagings(to)) await renameNow(join(to, name), join(to, name.replace(own, '-2147483646-')));
}

/** `1`, `2`, or why the folder is refused. */
const loaded = (folder: string): Promise<string> =>
  modelIn(folder).then(String, async (error: unknown) => {
    const refusal: unknown = await openCheckpoint(folder).catch((reason: unknown) => reason);
    expect(refusal).toBeInstanceOf(CheckpointError);
    expect((refusal as Error).message).toMatch(/a save into this folder has not ended.*q-save/);
    return error instanceof CheckpointError ? 'refused' : 'refused, and no config.json';
  });

describe.each([
  ['one file over shards', 40, 1000],
  ['shards over one file', 1000, 40],
  ['the same shards', 40, 40],
] as const)('%s', (name, oldShard, newShard) => {
  it('killed before any rename: the old model, the new one, or a typed error; and the next save is whole', async () => {
    const folder = await oldModel(`${name}`, oldShard);
    const snapshots: string[] = [];
    onRename = async () => {
      const to = join(temp.path, `${name}-${snapshots.length}`);
      await asKilled(folder, to);
      snapshots.push(to);
    };
    await writerFor(folder, 2, newShard).write(dataOf(2));
    onRename = undefined;
    expect(await loaded(folder)).toBe('2');
    expect(snapshots.length).toBeGreaterThan(8);

    const found = [];
    for (const snapshot of snapshots) {
      found.push(await loaded(snapshot));
      await writerFor(snapshot, 3, newShard).write(dataOf(3));
      expect(await loaded(snapshot)).toBe('3');
      expect(await stagings(snapshot)).toEqual([]);
      expect(await readFile(join(snapshot, 'README.md'), 'utf8')).toBe('mine');
      await rm(snapshot, { recursive: true });
    }
    expect(found[0]).toBe('1');
    expect(new Set(found.slice(1))).toEqual(new Set(['refused', 'refused, and no config.json']));
    expect((await readdir(folder)).filter((each) => /^(tokenizer\.model|extra\.txt)$/.test(each))).toEqual([]);
  });
});

it('a process killed at any rename leaves the old model, the new one, or a refusal', async () => {
  const original = await oldModel('really', 40);
  const found: string[] = [];
  for (let killed = true; killed;) {
    const folder = join(temp.path, 'really', String(found.length));
    await cp(original, folder, { recursive: true });
    killed = await saveKilled({ folder, shard: 1000, at: found.length + 1 });
    expect(await stagings(folder)).toHaveLength(killed ? 1 : 0);
    found.push(await loaded(folder));
    await writerFor(folder, 3, 1000).write(dataOf(3));
    expect(await loaded(folder)).toBe('3');
    expect(await stagings(folder)).toEqual([]);
    expect(await readFile(join(folder, 'README.md'), 'utf8')).toBe('mine');
  }
  expect(found.length).toBeGreaterThan(8);
  expect(found[0]).toBe('1');
  expect(found.at(-1)).toBe('2');
  expect(new Set(found.slice(1, -1))).toEqual(new Set(['refused', 'refused, and no config.json']));
}, 300_000);

it('a process killed while it saves into a new folder leaves none, or the model', async () => {
  const folder = join(await temp.sub('new'), 'model');
  expect(await saveKilled({ folder, shard: 40, at: 1 })).toBe(true);
  expect(await readdir(join(folder, '..'))).not.toContain('model');
  expect(await saveKilled({ folder, shard: 40, at: 2 })).toBe(false);
  expect(await loaded(folder)).toBe('2');
  expect(await readdir(join(folder, '..'))).toEqual(['model']);
});

it('a save that fails while files are moved puts everything back', async () => {
  const folder = await oldModel('fails', 1000);
  const copy = join(temp.path, 'fails-copy');
  await cp(folder, copy, { recursive: true });
  await mkdir(join(folder, 'model-00002-of-00003.safetensors', 'in-the-way'), { recursive: true });
  await mkdir(join(folder, 'tokenizer.json.d'));
  const writer = writerFor(folder, 2, 40).addFile('tokenizer.json.d/x', 'x');
  await rm(join(folder, 'tokenizer.json.d'), { recursive: true });
  await writeFile(join(folder, 'tokenizer.json.d'), 'a file where a folder must be');
  await expect(writer.write(dataOf(2))).rejects.toThrow(CheckpointError);
  expect(await modelIn(folder)).toBe(1);
  for (const name of await readdir(copy))
    expect((await readFile(join(folder, name))).equals(await readFile(join(copy, name)))).toBe(true);
  expect(await stagings(folder)).toEqual([]);
});

it('a save without config.json keeps that of the folder', async () => {
  const folder = await oldModel('weights-only', 1000);
  const writer = new SafetensorsWriter(folder);
  for (const spec of tensorsOf(1)) writer.declare(spec);
  expect(await writer.write(dataOf(1))).toEqual(['model.safetensors']);
  expect(await modelIn(folder)).toBe(1);
});

it('leaves the staging folder of a process that is at work alone', async () => {
  const folder = await oldModel('two-at-once', 1000);
  let other = '';
  await writerFor(folder, 2, 1000).write(async () => {
    if (other === '') {
      [other] = await stagings(folder);
      await writerFor(folder, 3, 1000).write(dataOf(3));
      expect(await stagings(folder)).toEqual([other]);
    }
    return new Uint8Array(40).fill(2);
  });
  expect(await modelIn(folder)).toBe(2);
});

it('clears what was left beside a folder that did not exist', async () => {
  const parent = await temp.sub('beside');
  const stale = join(parent, `new.q-save-${'0'.repeat(8)}-1-0-0`);
  await mkdir(join(stale, 'new'), { recursive: true });
  await utimes(stale, 0, 0);
  await writerFor(join(parent, 'new'), 2, 1000).write(dataOf(2));
  expect(await readdir(parent)).toEqual(['new']);
});
