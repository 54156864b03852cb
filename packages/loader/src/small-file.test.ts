import { spawnSync } from 'node:child_process';
import { chmod, mkdir, open, readFile, rename, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CheckpointError, QError, UnsupportedError } from '@q/config';
import { openCheckpoint } from './checkpoint.js';
import { inspectCheckpoint } from './inspect.js';
import { readJsonObject, readText } from './json-file.js';
import { readOptionalFile, readSmallFile } from './small-file.js';
import { fileOf, temporary } from './testing.js';

const temp = temporary();
const errorOf = async (run: () => Promise<unknown>): Promise<Error> => {
  const error: unknown = await run().then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(Error);
  return error as Error;
};

/** Every reader that takes a path of a stranger's file. */
const readers: readonly (readonly [string, (path: string) => Promise<unknown>])[] = [
  ['readSmallFile', readSmallFile],
  ['readOptionalFile', readOptionalFile],
  ['readText', readText],
  ['readJsonObject', readJsonObject],
  ['openCheckpoint', (path) => openCheckpoint(path)],
];

describe.each(readers)('%s', (_, read) => {
  it('refuses what is no regular file, at once', async () => {
    const folder = await temp.sub(`kinds-${_}`);
    const [fifo, link] = [join(folder, 'fifo.json'), join(folder, 'link.json')];
    expect(spawnSync('mkfifo', [fifo]).status).toBe(0);
    await symlink(fifo, link);
    const socket = join(folder, 's');
    const server = createServer().listen(socket);
    await new Promise((resolve) => server.on('listening', resolve));
    for (const [path, kind] of [
      [fifo, /FIFO/],
      [link, /FIFO/],
      [socket, /socket/],
      ['/dev/zero', /device/],
    ] as const) {
      const error = await errorOf(() => read(path));
      expect(error).toBeInstanceOf(CheckpointError);
      expect(error.message).toMatch(/this is not a file/);
      expect(error.message).toMatch(kind);
      expect(error.message).toContain(path);
    }
    await new Promise((resolve) => server.close(resolve));
  });

  it('names the path where the system refuses', async () => {
    const folder = await temp.sub(`system-${_}`);
    const file = join(folder, 'file');
    await writeFile(file, '{}');
    await symlink('b', join(folder, 'a'));
    await symlink('a', join(folder, 'b'));
    const locked = join(folder, 'locked');
    await writeFile(locked, '{}');
    await chmod(locked, 0);
    const cases: [string, RegExp][] = [
      [join(file, 'below'), /a part of the path is a file/],
      [join(folder, 'a'), /in a circle/],
      [join(folder, 'n'.repeat(300)), /too long/],
      [`${file}\0`, /cannot be a path/],
    ];
    if (process.getuid?.() !== 0) cases.push([locked, /permission/]);
    for (const [path, why] of cases) {
      const error = await errorOf(() => read(path));
      expect(error).toBeInstanceOf(CheckpointError);
      expect(error.message).toMatch(why);
      expect(error.message).toContain(join(folder, '').slice(0, -1));
    }
  });
});

describe('size', () => {
  it('is looked at before a byte is read', async () => {
    const path = join(await temp.sub('size'), 'config.json');
    await writeFile(path, '{');
    await truncate(path, 600_000_000); // a hole
    const started = performance.now();
    expect((await errorOf(() => readText(path))).message).toMatch(/absurdly long.*bytes 600000000/);
    expect(performance.now() - started).toBeLessThan(2000);
    await truncate(path, 2000);
    expect((await errorOf(() => readText(path, { maxBytes: 1999 }))).message).toMatch(/limit is 1999/);
  });

  it('a file that is not there is none', async () => {
    expect(await readOptionalFile(join(await temp.sub('none'), 'x'))).toBeUndefined();
  });

  it('the signal stops a read', async () => {
    const path = join(await temp.sub('signal'), 'big');
    const handle = await open(path, 'w');
    await handle.truncate(90_000_000);
    await handle.close();
    const reason = new Error('stop');
    expect(await errorOf(() => readSmallFile(path, { signal: AbortSignal.abort(reason) }))).toBe(reason);
    const controller = new AbortController();
    const reading = errorOf(() => readSmallFile(path, { signal: controller.signal }));
    setTimeout(() => controller.abort(reason), 1);
    expect(await reading).toBe(reason);
  });

  it('JSON that is nested too deeply, and text that is none, are named', async () => {
    const folder = await temp.sub('json');
    const write = async (name: string, content: string | Uint8Array) => {
      await writeFile(join(folder, name), content);
      return join(folder, name);
    };
    const deep = await write('deep.json', `${'{"a":'.repeat(200_000)}1${'}'.repeat(200_000)}`);
    expect((await errorOf(() => readJsonObject(deep))).message).toMatch(/nested too deeply.*deep\.json/);
    const binary = await write('binary.json', Uint8Array.of(0x7b, 0xff, 0xfe));
    expect((await errorOf(() => readJsonObject(binary))).message).toMatch(/not UTF-8.*binary\.json/);
  });
});

describe('what lies in the place of a file', () => {
  const pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n';
  const zip = Buffer.concat([Buffer.from('PK\x03\x04'), Buffer.alloc(100)]);
  it.each([
    ['a Git LFS pointer', pointer, CheckpointError, /Git LFS pointer.*git lfs pull/],
    ['an HTML page', '\n<!DOCTYPE html>\n<html>', CheckpointError, /HTML page.*resolve/],
    ['an HTML page without doctype', '<html lang="en">', CheckpointError, /HTML page/],
    ['an error of a server', 'Entry not found', CheckpointError, /error message of a server/],
    ['a GGUF file', Buffer.from('GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0'), UnsupportedError, /GGUF/],
    ['a torch file', zip, UnsupportedError, /PyTorch.*its name: \.bin/],
    [
      'an old torch file',
      Buffer.from('\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.', 'latin1'),
      UnsupportedError,
      /pickle/,
    ],
    ['an HDF5 file', Buffer.from('\x89HDF\r\n\x1a\n', 'latin1'), UnsupportedError, /HDF5/],
  ] as const)('%s is named', async (name, content, type, message) => {
    const folder = await temp.sub(name);
    await writeFile(join(folder, 'model.safetensors'), content);
    const error = await errorOf(() => openCheckpoint(folder));
    expect(error).toBeInstanceOf(type);
    expect(error.message).toMatch(message);
    await writeFile(join(folder, 'x.json'), content);
    if (type === CheckpointError)
      expect((await errorOf(() => readJsonObject(join(folder, 'x.json')))).message).toMatch(message);
  });

  it.each([
    ['model.safetensors', '# xet version 0\nfilesize = 12\nhash = "0f"\n', /is a Xet pointer.*git xet install/],
    ['model.safetensors', '', /model\.safetensors is empty/],
    ['config.json', '{\n  "model_type": "llama"\n}', /config\.json is a JSON file.*give the folder/],
    ['eval.json', '[{"a": 1}]', /eval\.json is a JSON file/],
    ['README.md', `---\nlicense: mit\n---\n${'\u00e9'.repeat(600)}`, /README\.md is a text file/],
    ['weights.bin', Buffer.from([7, 0, 1, 255, 254, 9, 0, 3, 200]), /is no PyTorch file/],
    ['model.onnx', Buffer.from([8, 7, 18, 7, 112, 121, 0, 255, 3]), /its name is that of an ONNX graph/],
    ['cat.png', Buffer.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 0, 0]), /cat\.png is no safetensors file/],
    ['model.safetensors.zst', Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0, 0]), /is a compressed file.*unpack/],
    ['model.safetensors', Buffer.alloc(300, 0xee), /header length is absurd/],
    ['model.safetensors', Buffer.concat([Buffer.from([9, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{"a": 1}')]), /cut short/],
  ] as const)('a file that is opened by itself: %s', async (name, content, message) => {
    const path = join(await temp.sub('itself'), name);
    await writeFile(path, content);
    const error = await errorOf(() => openCheckpoint(path));
    expect(error).toBeInstanceOf(QError);
    expect(error.message).toMatch(message);
  });

  it('an index or a shard that is a pointer is named', async () => {
    const folder = await temp.sub('lfs-shard');
    const index = join(folder, 'model.safetensors.index.json');
    await writeFile(index, pointer);
    expect((await errorOf(() => openCheckpoint(folder))).message).toMatch(/LFS.*index\.json/);
    await writeFile(index, JSON.stringify({ weight_map: { a: 'model-1.safetensors' } }));
    await writeFile(join(folder, 'model-1.safetensors'), pointer);
    expect((await errorOf(() => openCheckpoint(folder))).message).toMatch(/LFS.*model-1/);
  });

  it('text files other than JSON are taken as they are, but for pointers', async () => {
    const folder = await temp.sub('text');
    await writeFile(join(folder, 'chat_template.jinja'), '<html>');
    expect(await readText(join(folder, 'chat_template.jinja'))).toBe('<html>');
    await writeFile(join(folder, 'merges.txt'), pointer);
    expect((await errorOf(() => readText(join(folder, 'merges.txt')))).message).toMatch(/LFS/);
  });

  it.each([
    [['llama-q4.gguf'], /only GGUF files.*llama-q4\.gguf/],
    [['diffusion_pytorch_model.bin', 'training_args.bin'], /only PyTorch weights under another name.*baseName/],
    [['consolidated.00.pth', 'params.json'], /only Meta's original weights/],
    [['consolidated.safetensors'], /only Mistral's own layout/],
    [['flax_model.msgpack'], /only Flax weights.*from_flax/],
    [['tf_model.h5'], /only TensorFlow weights.*from_tf/],
    [['adapter_model.safetensors', 'adapter_config.json'], /only an adapter.*base model/],
    [['weights.npz'], /only NumPy weights/],
    [['model.onnx'], /only an ONNX graph/],
    [['optimizer.pt', 'training_args.bin', 'README.md'], /has no checkpoint/],
    [['model.fp16.safetensors'], /has no checkpoint.*model\.fp16\.safetensors.*variant/],
  ])('a folder of %j', async (names, message) => {
    const folder = await temp.sub(names.join());
    for (const name of names) await writeFile(join(folder, name), '');
    expect((await errorOf(() => openCheckpoint(folder))).message).toMatch(message);
  });

  it('a link that leads nowhere, a FIFO as weights', async () => {
    const folder = await temp.sub('links');
    await symlink('gone', join(folder, 'model.safetensors'));
    expect((await errorOf(() => openCheckpoint(folder))).message).toMatch(/link leads nowhere.*model\.safetensors/);
    const other = await temp.sub('fifo');
    spawnSync('mkfifo', [join(other, 'model.safetensors')]);
    expect((await errorOf(() => inspectCheckpoint(other))).message).toMatch(/not a file.*FIFO/);
  });
});

describe('files that change while they are read', () => {
  const header = { a: { dtype: 'U8', shape: [4], data_offsets: [0, 4] } };
  const write = async (name: string) => {
    const folder = await temp.sub(name);
    await writeFile(join(folder, 'model.safetensors'), fileOf(header, 4));
    return join(folder, 'model.safetensors');
  };

  it('replaced, overwritten or cut: what the header said does not count any more', async () => {
    for (const change of [
      async (path: string) => (await writeFile(`${path}.new`, fileOf(header, 4)), rename(`${path}.new`, path)),
      async (path: string) => (await writeFile(path, fileOf(header, 4)), utimes(path, 1, 1)),
      (path: string) => truncate(path, 60),
    ]) {
      const path = await write('changes');
      await using checkpoint = await openCheckpoint(path);
      await change(path);
      expect((await errorOf(() => checkpoint.read('a'))).message).toMatch(/changed or replaced since.*tensor a/);
    }
    const path = await write('stays');
    await using checkpoint = await openCheckpoint(path);
    await readFile(path);
    expect((await checkpoint.read('a')).length).toBe(4);
  });
});

it('a folder where a shard should be, and the like, are typed errors', async () => {
  const folder = await temp.sub('shard-folder');
  await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: { a: 'x.safetensors' } }));
  await mkdir(join(folder, 'x.safetensors'));
  expect((await errorOf(() => openCheckpoint(folder))).message).toMatch(/not a file.*x\.safetensors.*a folder/);
});
