// Names from files are never looked up in objects with a prototype: every reader gets names that such objects have.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { CheckpointError, QError, pythonJson } from '@q/config';
import { parseQuantState } from './formats/bnb4/quant-state.js';
import { openCheckpoint } from './checkpoint.js';
import { inspectCheckpoint } from './inspect.js';
import { compareKeys } from './keys.js';
import { fileOf, temporary } from './testing.js';
import { parsePythonJson } from './write/python-json-parse.js';
import { SafetensorsWriter } from './write/writer.js';

const temp = temporary();
const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'valueOf', '__defineGetter__'];
const pristine = Object.getOwnPropertyNames(Object.prototype).sort();
let folders = 0;

afterEach(() => {
  expect(Object.getOwnPropertyNames(Object.prototype).sort()).toEqual(pristine);
  expect(Object.keys(Object)).toEqual([]);
});

/** The text of an object; `JSON.stringify` of a literal would lose `__proto__`. */
const object = (entries: readonly (readonly [string, unknown])[]): string =>
  `{${entries.map(([key, value]) => `${JSON.stringify(key)}:${typeof value === 'string' && value.startsWith('{') ? value : JSON.stringify(value)}`).join()}}`;
const folderWith = async (files: Readonly<Record<string, string | Uint8Array>>): Promise<string> => {
  const folder = await temp.sub(`h${folders++}`);
  for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), content);
  return folder;
};

describe.each(names)('%s', (name) => {
  const tensor = (dtype: string, from = 0) => ({ dtype, shape: [4], data_offsets: [from, from + 4] });

  it('as the name of a tensor', async () => {
    const folder = await folderWith({
      'model.safetensors': fileOf(
        object([
          [name, tensor('U8')],
          [`${name}.weight`, tensor('U8', 4)],
        ]),
        8,
      ),
    });
    await using checkpoint = await openCheckpoint(folder);
    expect([...checkpoint.tensors.keys()]).toEqual([name, `${name}.weight`]);
    expect(checkpoint.has('missing')).toBe(false);
    expect((await checkpoint.read(name)).length).toBe(4);
    expect(compareKeys(checkpoint, ['x']).unexpected).toEqual([name, `${name}.weight`]);
    const report = await inspectCheckpoint(folder);
    expect(report.modules.map((module) => module.name)).toEqual(['', name]);
  });

  it('as a name that is not there', async () => {
    await using checkpoint = await openCheckpoint(await folderWith({ 'model.safetensors': fileOf({}, 0) }));
    expect([checkpoint.has(name), Object.hasOwn(checkpoint.metadata, name), checkpoint.metadata[name]]).toEqual([
      false,
      false,
      undefined,
    ]);
    expect(() => checkpoint.tensor(name)).toThrow(CheckpointError);
  });

  it('as an element type', async () => {
    const folder = await folderWith({ 'model.safetensors': fileOf(object([['a', tensor(name)]]), 4) });
    const report = await inspectCheckpoint(folder);
    expect(Object.keys(report.dtypes)).toEqual([name]);
    expect(report.dtypes[name]).toEqual({ tensors: 1, elements: 4, bytes: 4 });
  });

  it('as a key of the metadata, which is kept', async () => {
    const text = object([['__metadata__', object([[name, 'text']])]]);
    await using checkpoint = await openCheckpoint(await folderWith({ 'model.safetensors': fileOf(text, 0) }));
    expect(Object.entries(checkpoint.metadata)).toEqual([[name, 'text']]);
  });

  it('in the description of a tensor, where it means nothing', async () => {
    const text = `{"a":${object([
      [name, '{"dtype":"F32","shape":[9]}'],
      ['dtype', 'U8'],
      ['shape', [4]],
      ['data_offsets', [0, 4]],
    ])}}`;
    await using checkpoint = await openCheckpoint(await folderWith({ 'model.safetensors': fileOf(text, 4) }));
    expect(checkpoint.tensor('a')).toMatchObject({ dtype: 'u8', shape: [4] });
    const bare = `{"a":${object([[name, '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}']])}}`;
    await expect(openCheckpoint(await folderWith({ 'model.safetensors': fileOf(bare, 4) }))).rejects.toThrow(
      CheckpointError,
    );
  });

  it('in an index, as a tensor and as a shard', async () => {
    const index = object([['weight_map', object([[name, 'm.safetensors']])]]);
    const folder = await folderWith({
      'model.safetensors.index.json': index,
      'm.safetensors': fileOf(object([[name, tensor('U8')]]), 4),
    });
    await using checkpoint = await openCheckpoint(folder);
    expect([checkpoint.has(name), checkpoint.absent.size, checkpoint.warnings]).toEqual([true, 0, []]);
    for (const map of [object([['a', name]]), object([[name, '{}']]), object([[name, null]])])
      await expect(
        openCheckpoint(await folderWith({ 'model.safetensors.index.json': object([['weight_map', map]]) })),
      ).rejects.toThrow(QError);
  });

  it('in config.json of an inspected folder', async () => {
    const hostile = object([
      [name, '{"model_type":"x"}'],
      ['quantization_config', object([[name, '{"bits":4}']])],
    ]);
    const report = await inspectCheckpoint(
      await folderWith({ 'model.safetensors': fileOf({}, 0), 'config.json': hostile, 'quantize_config.json': hostile }),
    );
    expect([report.modelType, report.quantization?.method]).toEqual([undefined, 'unknown']);
  });

  it('in a quantization state', () => {
    const place = { file: 'f', tensor: 't' };
    expect(() => parseQuantState(object([[name, 1]]), place)).toThrow(/unknown keys/);
    for (const key of ['quant_type', 'dtype'])
      expect(() => parseQuantState(object([[key, name]]), place)).toThrow(QError);
  });

  it('in JSON that is written as Python does', () => {
    const text = `{"${name}": {"${name}": [1.0, {"${name}": null}]}}`;
    expect(pythonJson(parsePythonJson(text))).toBe(text);
  });

  it('in what is saved', async () => {
    const folder = join(await temp.sub(`save${folders++}`), 'out');
    const metadata = Object.fromEntries([[name, 'text']]) as Record<string, string>;
    const writer = new SafetensorsWriter(folder, { maxShardSize: 4, metadata });
    for (const each of [name, `${name}.weight`]) writer.declare({ name: each, dtype: 'u8', shape: [4] });
    await writer.write(() => new Uint8Array(4));
    await using checkpoint = await openCheckpoint(folder);
    expect([...checkpoint.tensors.keys()].sort()).toEqual([name, `${name}.weight`].sort());
    expect(Object.entries(checkpoint.metadata)).toEqual([[name, 'text']]);
    expect(await readFile(join(folder, 'model.safetensors.index.json'), 'utf8')).toContain(`"${name}":`);
    expect(() => new SafetensorsWriter(folder).declare({ name: 'a', dtype: name as 'u8', shape: [1] })).toThrow(QError);
  });
});

it('a module of very many tensors, and very many modules, are inspected in linear time', async () => {
  for (const nameOf of [(i: number) => `a${i}`, (i: number) => `m${i}.weight.absmax`, (i: number) => `m${i}.a.b`]) {
    const entries = Array.from({ length: 60_000 }, (_, i) => [
      nameOf(i),
      { dtype: 'U8', shape: [0], data_offsets: [0, 0] },
    ]);
    const folder = await folderWith({ 'model.safetensors': fileOf(Object.fromEntries(entries), 0) });
    const started = performance.now();
    const report = await inspectCheckpoint(folder);
    expect(report.dtypes.u8.tensors).toBe(60_000);
    expect(performance.now() - started).toBeLessThan(20_000); // 0.5 s on an idle machine; 30 s when it was quadratic
  }
});
