import { mkdir, truncate, writeFile, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CheckpointError, ConfigError, DisposedError, UnsupportedError } from '@q/config';
import { openCheckpoint, type OpenCheckpointOptions } from './checkpoint.js';
import { inspectCheckpoint } from './inspect.js';
import { fileOf, temporary, unpack } from './testing.js';

const temp = temporary();
const u8 = (begin: number, end: number) => ({ dtype: 'U8', shape: [end - begin], data_offsets: [begin, end] });
const A = 'model-00001-of-00002.safetensors';
const B = 'model-00002-of-00002.safetensors';
const indexName = 'model.safetensors.index.json';
let n = 0;

/** Two shards, tensor a in the first, b and c in the second, with this index. */
async function sharded(index: unknown): Promise<string> {
  const folder = await temp.sub(`s${n++}`);
  await writeFile(join(folder, A), fileOf({ __metadata__: { format: 'pt' }, a: u8(0, 2) }, 2));
  await writeFile(join(folder, B), fileOf({ b: u8(0, 3), c: u8(3, 4) }, 4));
  await writeFile(join(folder, indexName), typeof index === 'string' ? index : JSON.stringify(index));
  return folder;
}
const goodMap = { a: A, b: B, c: B };

describe('openCheckpoint', () => {
  it.each([
    ['no folder', undefined, {}, /the folder is undefined; give the folder/],
    ['an empty one', ' ', {}, /the folder is " "/],
    ['a number', 5, {}, /the folder is 5/],
    ['an unknown option', 'x', { base_name: 'a' }, /unknown option base_name; did you mean baseName/],
    ['no options', 'x', null, /options must be an object/],
    ['a variant that is no text', 'x', { variant: 16 }, /variant is 16, not a text/],
    ['no signal', 'x', { signal: 1 }, /signal is 1/],
  ])('refuses %s in the words of the caller', async (_, folder, options, message) => {
    for (const open of [openCheckpoint, inspectCheckpoint]) {
      const opened = open(folder as string, options as OpenCheckpointOptions);
      await expect(opened).rejects.toThrow(ConfigError);
      await expect(opened).rejects.toThrow(message);
    }
  });

  it('shows all shards as one', async () => {
    await using checkpoint = await openCheckpoint(await unpack('llama-sharded', await temp.sub('llama')));
    expect(checkpoint.files).toHaveLength(5);
    expect(checkpoint.tensors.size).toBe(21);
    expect(checkpoint.metadata).toEqual({ format: 'pt' });
    expect(checkpoint.dataBytes).toBe(443648);
    expect(checkpoint.warnings).toEqual([]);
    const norm = checkpoint.tensor('model.norm.weight');
    expect(norm).toMatchObject({ dtype: 'f32', shape: [64], bytes: 256 });
    const whole = await readFile(norm.file);
    const bytes = await checkpoint.read('model.norm.weight');
    expect(Buffer.from(bytes).equals(whole.subarray(norm.offset, norm.offset + 256))).toBe(true);
    const part = new Uint8Array(8);
    await checkpoint.readInto(norm, part, { from: 16 });
    expect([...part]).toEqual([...bytes.subarray(16, 24)]);
    await expect(checkpoint.readInto(norm, part)).rejects.toThrow(/not those of the tensor/);
    await expect(checkpoint.read('nope')).rejects.toThrow(/no such tensor.*nope/);
  });

  it('opens a named file, a variant, an adapter and prefers the single file', async () => {
    const folder = await sharded({ weight_map: goodMap });
    for (const name of ['model', 'model.fp16', 'adapter_model', 'odd'])
      await writeFile(join(folder, `${name}.safetensors`), fileOf({ [name]: u8(0, 0) }, 0));
    const first = async (path: string, options = {}) => {
      await using checkpoint = await openCheckpoint(path, options);
      return [...checkpoint.tensors.keys()][0];
    };
    expect(await first(folder)).toBe('model');
    expect(await first(folder, { variant: 'fp16' })).toBe('model.fp16');
    expect(await first(folder, { baseName: 'adapter_model' })).toBe('adapter_model');
    expect(await first(join(folder, 'odd.safetensors'))).toBe('odd');
    expect(await first(join(folder, indexName))).toBe('a');
  });

  it('reads data that is not aligned in the file', async () => {
    const folder = await temp.sub('unaligned');
    await writeFile(
      join(folder, 'model.safetensors'),
      fileOf(
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}',
        5,
      ),
    );
    await using checkpoint = await openCheckpoint(folder);
    expect(new Float32Array((await checkpoint.read('b')).buffer)).toEqual(new Float32Array(1));
  });

  const escapes = [
    '../model.safetensors',
    '/etc/model.safetensors',
    'a/../../b.safetensors',
    '..\\b.safetensors',
    'C:b.safetensors',
    './b.safetensors',
    'a//b.safetensors',
    'a\0b.safetensors',
    '',
  ];
  it.each(escapes)('refuses the shard path "%s"', async (shard) => {
    const opening = openCheckpoint(await sharded({ weight_map: { ...goodMap, a: shard } }));
    await expect(opening).rejects.toThrow(CheckpointError);
    await expect(opening).rejects.toThrow(/leaves the folder.*tensor a/);
  });

  it.each([
    ['a shard that is not there', { weight_map: { ...goodMap, c: 'model-3.safetensors' } }, /model-3.*no such file/],
    ['no weight_map', {}, /no weight_map/],
    ['an empty weight_map', { weight_map: {} }, /lists no tensors/],
    ['a weight_map of numbers', { weight_map: { a: 1 } }, /names no file.*tensor a/],
    ['a negative total', { metadata: { total_size: -1 }, weight_map: goodMap }, /total_size/],
    ['a key twice', `{"weight_map":{"a":"${A}","a":"${B}"}}`, /key twice.*key a/],
    ['no JSON', '{', /not valid JSON/],
    ['an array', '[]', /does not hold a JSON object/],
  ])('refuses an index with %s', async (_, index, message) => {
    const opening = openCheckpoint(await sharded(index));
    await expect(opening).rejects.toThrow(CheckpointError);
    await expect(opening).rejects.toThrow(message);
  });

  it('believes the shards where the index says otherwise, with a warning', async () => {
    const warningsOf = async (weight_map: object) => {
      await using checkpoint = await openCheckpoint(await sharded({ weight_map }));
      expect([...checkpoint.tensors.keys()]).toEqual(['a', 'b', 'c']);
      expect((await checkpoint.read('b')).length).toBe(3);
      return checkpoint.warnings;
    };
    expect(await warningsOf({ ...goodMap, d: B, e: A })).toEqual([
      expect.stringMatching(/names 2 tensors that no shard has: d, e$/),
    ]);
    expect(await warningsOf({ a: A, b: B })).toEqual([expect.stringMatching(/does not name 1 tensor .*: c$/)]);
    expect(await warningsOf({ ...goodMap, b: A })).toEqual([expect.stringMatching(/another shard .* 1 tensor: b$/)]);
  });

  it('names the shard that should have a tensor, when the tensor is wanted', async () => {
    await using checkpoint = await openCheckpoint(await sharded({ weight_map: { ...goodMap, d: B } }));
    await expect(checkpoint.read('d')).rejects.toThrow(/no such tensor.*tensor d.*00002-of-00002.*not so/);
  });

  it('refuses a tensor that two shards have', async () => {
    const folder = await sharded({ weight_map: goodMap });
    await writeFile(join(folder, A), fileOf({ a: u8(0, 2), c: u8(2, 3) }, 3));
    await expect(openCheckpoint(folder)).rejects.toThrow(/two shards have the same tensor.*tensor c/);
  });

  it('names a shard that is missing, cut short or damaged', async () => {
    const folder = await sharded({ weight_map: goodMap });
    await truncate(join(folder, B), 20);
    await expect(openCheckpoint(folder)).rejects.toThrow(new RegExp(`cut short.*${B}`));
    await rm(join(folder, B));
    await expect(openCheckpoint(folder)).rejects.toThrow(new RegExp(`${B}.*no such file`));
    await mkdir(join(folder, B));
    await expect(openCheckpoint(folder)).rejects.toThrow(new RegExp(`not a file.*${B}`));
  });

  it('warns about a wrong total_size, which published indexes often have', async () => {
    await using checkpoint = await openCheckpoint(await sharded({ metadata: { total_size: 7 }, weight_map: goodMap }));
    expect(checkpoint.warnings).toEqual([expect.stringMatching(/total_size is 7, the shards hold 6 bytes/)]);
  });

  it('says what to do with other files, foreign formats and empty folders', async () => {
    const folder = await temp.sub('bin');
    await expect(openCheckpoint(folder)).rejects.toThrow(/has no checkpoint.*check the path/);
    await expect(openCheckpoint(join(folder, 'nope'))).rejects.toThrow(/cannot read the folder.*no such file/);
    await writeFile(join(folder, 'pytorch_model.bin'), 'x');
    await expect(openCheckpoint(folder)).rejects.toThrow(/pytorch_model\.bin is a text file/);
    const adapter = await temp.sub('adapter');
    await writeFile(join(adapter, 'adapter_model.safetensors'), fileOf({}, 0));
    await expect(openCheckpoint(adapter)).rejects.toThrow(/adapter_model.safetensors.*baseName/);
    await writeFile(join(folder, 'model.safetensors'), fileOf({ __metadata__: { format: 'tf' } }, 0));
    await expect(openCheckpoint(folder)).rejects.toThrow(/written by tf/);
  });

  it('lists tensors of types Q does not compute with, and fails when one is used', async () => {
    const folder = await temp.sub('f64');
    await writeFile(
      join(folder, 'model.safetensors'),
      fileOf({ d: { dtype: 'F64', shape: [1], data_offsets: [0, 8] } }, 8),
    );
    await using checkpoint = await openCheckpoint(folder);
    expect(checkpoint.has('d')).toBe(true);
    expect(() => checkpoint.tensor('d')).toThrow(UnsupportedError);
    expect(() => checkpoint.tensor('d')).toThrow(/F64.*tensor d/);
  });

  it('honours the signal, sees files that shrank, and fails after close', async () => {
    const folder = await sharded({ weight_map: goodMap });
    const reason = new Error('stop');
    await expect(openCheckpoint(folder, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const checkpoint = await openCheckpoint(folder);
    await expect(checkpoint.read('a', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await truncate(join(folder, B), 90);
    await expect(checkpoint.read('c')).rejects.toThrow(/ends early.*tensor c/);
    const reading = checkpoint.read('a');
    await checkpoint.close();
    expect((await reading).length).toBe(2);
    await expect(checkpoint.read('a')).rejects.toThrow(DisposedError);
    await checkpoint.close();
  });
});

it('any change of an index is read or refused with a typed error', async () => {
  const text = JSON.stringify({ metadata: { total_size: 6 }, weight_map: goodMap });
  const folder = await sharded(text);
  const change = fc.tuple(fc.nat(text.length - 1), fc.string({ maxLength: 3 }), fc.nat(4));
  await fc.assert(
    fc.asyncProperty(change, async ([at, piece, cut]) => {
      await writeFile(join(folder, indexName), text.slice(0, at) + piece + text.slice(at + cut));
      try {
        await (await openCheckpoint(folder)).close();
      } catch (error) {
        if (!(error instanceof CheckpointError || error instanceof UnsupportedError)) throw error;
      }
    }),
    { seed: 11, numRuns: 400 },
  );
});
