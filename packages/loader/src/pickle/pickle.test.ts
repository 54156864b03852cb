import { readFileSync } from 'node:fs';
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { CheckpointError, UnsupportedError } from '@q/config';
import { openCheckpoint } from '../checkpoint.js';
import { temporary } from '../testing.js';
import { PickleEnd, unpickle } from './unpickle.js';
import { PickleFault, PickleRefusal } from './rebuild.js';
import { openPickled } from './file.js';

const fixture = (name: string) => fileURLToPath(new URL(`../../fixtures/pickle/${name}`, import.meta.url));
const folder = temporary();

async function written(name: string, bytes: Uint8Array): Promise<string> {
  await folder.ready;
  const path = join(folder.path, name);
  await writeFile(path, bytes);
  return path;
}

describe.each(['archive', 'archive-protocol4', 'stream', 'stream-protocol4'])('%s', (name) => {
  it('has the tensors that Python saved, bit for bit', async () => {
    await using expected = await openCheckpoint(fixture('expected.safetensors'));
    await using checkpoint = await openCheckpoint(fixture(`${name}.bin`));
    expect([...checkpoint.tensors.keys()]).toEqual(['a', 'b', 'c', 'h', 'bf', 'e', 's', 'v', 'p']);
    for (const [key, entry] of checkpoint.tensors) {
      const wanted = expected.tensor(key);
      expect([key, entry.dtype, entry.shape]).toEqual([key, wanted.dtype, wanted.shape]);
      expect(await checkpoint.read(key)).toEqual(await expected.read(key));
    }
    expect(checkpoint.tensors.get('b')?.strides).toEqual([1, 3]);
  });

  it('lists what Q does not compute with, and refuses it where it is used', async () => {
    await using checkpoint = await openCheckpoint(fixture(`${name}.bin`));
    expect([...checkpoint.unsupported.values()].map(({ name, storedDtype }) => [name, storedDtype])).toEqual([
      ['d', 'F64'],
      ['x', 'F32 with strides 0, 1'],
    ]);
    expect(() => checkpoint.tensor('x')).toThrow(UnsupportedError);
  });
});

describe('what is in a folder', () => {
  it('opens pytorch_model.bin, but model.safetensors before it', async () => {
    const path = await folder.sub('both');
    await copyFile(fixture('archive.bin'), join(path, 'pytorch_model.bin'));
    await using pickled = await openCheckpoint(path);
    expect(pickled.files[0].path).toMatch(/pytorch_model\.bin$/);
    await copyFile(fixture('expected.safetensors'), join(path, 'model.safetensors'));
    await using safe = await openCheckpoint(path);
    expect(safe.files[0].path).toMatch(/model\.safetensors$/);
  });

  it('opens an index with its shards', async () => {
    const path = await folder.sub('sharded');
    await copyFile(fixture('f8.bin'), join(path, 'pytorch_model-00001-of-00002.bin'));
    await copyFile(fixture('stream.bin'), join(path, 'pytorch_model-00002-of-00002.bin'));
    const weight_map = { f: 'pytorch_model-00001-of-00002.bin', a: 'pytorch_model-00002-of-00002.bin' };
    await writeFile(join(path, 'pytorch_model.bin.index.json'), JSON.stringify({ metadata: {}, weight_map }));
    await using checkpoint = await openCheckpoint(path);
    expect(checkpoint.has('f') && checkpoint.has('a')).toBe(true);
    expect(checkpoint.unsupported.get('f8')?.storedDtype).toBe('F8_E4M3');
  });

  it('says what else a file holds', async () => {
    await using checkpoint = await openCheckpoint(fixture('mixed.bin'));
    expect(checkpoint.warnings).toEqual([expect.stringMatching(/mixed\.bin has 2 values besides tensors: n, name/)]);
  });
});

describe('what is refused', () => {
  it.each([
    ['module.bin', UnsupportedError, /asks Python for torch\.nn\.modules\.linear\.Linear/],
    ['numpy.bin', UnsupportedError, /asks Python for numpy\._core\.multiarray\.scalar/],
    ['script.bin', UnsupportedError, /TorchScript/],
    ['list.bin', CheckpointError, /no state dict/],
  ] as const)('%s, by name', async (name, kind, message) => {
    const error = await openPickled(fixture(name)).catch((error: Error) => error);
    expect(error).toBeInstanceOf(kind);
    expect((error as Error).message).toMatch(message);
  });

  it('tar archives, other formats and text', async () => {
    const tar = Buffer.alloc(1024);
    tar.write('ustar', 257);
    for (const [bytes, message] of [
      [tar, /a tar archive/],
      [readFileSync(fixture('expected.safetensors')), /safetensors under the name of a PyTorch file/],
      [Buffer.from('version https://git-lfs.github.com/spec/v1\n'), /Git LFS pointer/],
      [Buffer.alloc(0), /empty/],
      [Buffer.alloc(600, 7), /no PyTorch file/],
    ] as const)
      await expect(openPickled(await written('other.bin', bytes))).rejects.toThrow(message);
  });

  it.each(['archive', 'stream'])('%s cut at any byte: an error that names the file', async (name) => {
    const bytes = readFileSync(fixture(`${name}.bin`));
    for (let length = 0; length < bytes.length; length += 29) {
      const error = await openPickled(await written('cut.bin', bytes.subarray(0, length))).catch(
        (error: Error) => error,
      );
      if (!(error instanceof Error)) continue; // what is cut off is no tensor's
      expect(error.name, `${length}: ${error.message}`).toMatch(/^(CheckpointError|UnsupportedError)$/);
      expect(error.message).toContain('cut.bin');
    }
  });
});

/** A pickle of these bytes; texts are SHORT_BINUNICODE. */
const pickle = (...parts: readonly (number | string)[]): Uint8Array =>
  Buffer.concat(
    parts.map((part) =>
      typeof part === 'number' ? Buffer.from([part]) : Buffer.from([0x8c, part.length, ...Buffer.from(part)]),
    ),
  );
const global = (path: string) => [...Buffer.from(`c${path}\n`)];

describe('pickles of strangers', () => {
  it('run nothing', () => {
    for (const path of [
      'os\nsystem',
      'builtins\neval',
      'torch\nload',
      'torch._utils\n__proto__',
      '__builtin__\ngetattr',
    ])
      expect(() => unpickle(pickle(0x80, 2, ...global(path), 0x2e))).toThrow(PickleRefusal);
    expect(() => unpickle(pickle(0x80, 4, 'os', 'system', 0x93, 0x2e))).toThrow(/asks Python for os\.system/);
    // INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT1, PERSID, BUILD of what is no dict
    for (const code of [0x69, 0x6f, 0x81, 0x92, 0x82, 0x50])
      expect(() => unpickle(pickle(code))).toThrow(PickleRefusal);
    expect(() => unpickle(pickle(0x5d, 0x7d, 0x62, 0x2e))).toThrow(PickleFault);
  });

  it.each([
    ['a stack that is empty', [0x2e]],
    ['a mark in the place of a value', [0x28, 0x2e]],
    ['no mark', [0x7d, 0x75]],
    ['a memo that was never filled', [0x68, 3]],
    ['an item of a list', [0x5d, 'a', 'b', 0x73]],
    ['an odd number of items', [0x7d, 0x28, 'a', 0x75]],
    ['a call of a text', ['a', 0x29, 0x52]],
    ['a storage without class', [0x28, 'storage', 'x', 'k', 'cpu', 0x4b, 1, 0x74, 0x51]],
    ['a text that is no UTF-8', [0x8c, 1, 0xff]],
  ] as const)('%s is a fault', (_, parts) => {
    expect(() => unpickle(pickle(...parts))).toThrow(PickleFault);
  });

  it.each([
    ['a text longer than the file', [0x58, 0xff, 0xff, 0xff, 0xff, 0x61]],
    ['no end', [0x80, 2, 0x7d]],
    ['a name without an end', [0x63, 0x61]],
  ] as const)('%s is an early end', (_, parts) => {
    expect(() => unpickle(pickle(...parts))).toThrow(PickleEnd);
  });

  it('cost no more than their bytes', () => {
    // A list that is named again and again as the pairs of a dict, and one that holds itself.
    const pair = [0x4b, 1, 0x4b, 2, 0x86];
    const list = [0x5d, 0x71, 0, 0x28, ...Array.from({ length: 20_000 }, () => pair).flat(), 0x65, 0x30];
    const calls = Array.from({ length: 20_000 }, () => [...global('collections\nOrderedDict'), 0x68, 0, 0x85, 0x52]);
    expect(() => unpickle(Uint8Array.from(list))).toThrow(PickleRefusal); // POP
    const bytes = Uint8Array.from([...list.slice(0, -1), ...calls.flat(), 0x2e]);
    expect(() => unpickle(bytes)).not.toThrow();
    expect(unpickle(Uint8Array.from([0x5d, 0x71, 0, 0x68, 0, 0x61, 0x2e])).bytes).toBe(7);
  });
});
