import { readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CheckpointError, ConfigError } from '@q/config';
import { openCheckpoint } from '../checkpoint.js';
import { fixtureNames, temporary, unpack } from '../testing.js';
import { planShards } from './plan.js';
import { SafetensorsWriter, type WriteProgress } from './writer.js';

const temp = temporary();

describe('SafetensorsWriter', () => {
  it.each(fixtureNames)('writes %s back byte for byte', async (name) => {
    const from = await unpack(name, await temp.sub(`in-${name}`));
    await using checkpoint = await openCheckpoint(from);
    let n = 0;
    for (const file of checkpoint.files) {
      const to = join(temp.path, `out-${name}`, String(n++));
      const writer = new SafetensorsWriter(to, { metadata: file.metadata });
      for (const tensor of [...file.tensors.values()].reverse()) writer.declare(tensor);
      expect(await writer.write((spec) => checkpoint.read(spec.name))).toEqual(['model.safetensors']);
      expect((await readFile(join(to, 'model.safetensors'))).equals(await readFile(file.path))).toBe(true);
    }
  });

  it('cuts shards and writes the index as transformers does', async () => {
    const from = await unpack('llama-sharded', await temp.sub('in-shards'));
    await using checkpoint = await openCheckpoint(from);
    const layer = (i: number) =>
      [
        'self_attn.q_proj',
        'self_attn.k_proj',
        'self_attn.v_proj',
        'self_attn.o_proj',
        'mlp.gate_proj',
        'mlp.up_proj',
        'mlp.down_proj',
        'input_layernorm',
        'post_attention_layernorm',
      ].map((part) => `model.layers.${i}.${part}.weight`);
    const order = ['model.embed_tokens.weight', ...layer(0), ...layer(1), 'model.norm.weight', 'lm_head.weight'];
    const to = await temp.sub('out-shards');
    const writer = new SafetensorsWriter(to, { maxShardSize: '120KB', totalParameters: 110912 });
    for (const name of order) writer.declare(checkpoint.tensor(name));
    const names = await writer.write((spec) => checkpoint.read(spec.name));
    expect(names).toHaveLength(6);
    for (const name of names)
      expect((await readFile(join(to, name))).equals(await readFile(join(from, name)))).toBe(true);
  });

  it('gives a tensor larger than the limit a file of its own, before the shard that is being filled', () => {
    const u8 = (name: string, size: number) => ({ name, dtype: 'u8' as const, shape: [size] });
    const { shards } = planShards([u8('a', 4), u8('big', 11), u8('b', 6), u8('c', 1)], {
      maxShardBytes: 10,
      baseName: 'm',
    });
    expect([...shards].map(([file, part]) => [file, part.map((t) => t.name).join()])).toEqual([
      ['m-00001-of-00003.safetensors', 'big'],
      ['m-00002-of-00003.safetensors', 'a,b'],
      ['m-00003-of-00003.safetensors', 'c'],
    ]);
  });

  it('takes pieces, sorts by UTF-8, writes scalars and empty tensors', async () => {
    const to = join(temp.path, 'pieces');
    const progress: WriteProgress[] = [];
    const writer = new SafetensorsWriter(to, { onProgress: (p) => progress.push(p) });
    writer.declare({ name: '\u{1f600}', dtype: 'u8', shape: [3] }).declare({ name: '\uff5e', dtype: 'u8', shape: [] });
    writer.declare({ name: 'none', dtype: 'f32', shape: [0, 4] }).addFile('config.json', '{}\n');
    const names = await writer.write(async function* (spec) {
      if (spec.name === '\u{1f600}') yield* [new Uint8Array([1]), new Uint8Array([2, 3])];
      else if (spec.name !== 'none') yield new Uint8Array([9]);
    });
    expect(names).toEqual(['model.safetensors', 'config.json']);
    await using read = await openCheckpoint(to);
    expect([...read.tensors.keys()]).toEqual(['none', '\uff5e', '\u{1f600}']);
    expect([...(await read.read('\u{1f600}'))]).toEqual([1, 2, 3]);
    expect((await readFile(join(to, 'model.safetensors'))).length % 8).toBe(4);
    expect(progress.map((p) => p.bytes)).toEqual([0, 1, 4]);
  });

  const spec = { name: 'w', dtype: 'f32' as const, shape: [2] };
  it.each([
    ['too short', () => new Uint8Array(7), CheckpointError],
    [
      'too long',
      async function* () {
        yield new Uint8Array(9);
      },
      CheckpointError,
    ],
    [
      'cut',
      async function* () {
        yield new Uint8Array(4);
      },
      CheckpointError,
    ],
    ['throwing', () => Promise.reject(new RangeError('no')), RangeError],
  ])('leaves nothing behind when the data is %s', async (label, produce, type) => {
    const fresh = join(await temp.sub(`fail-${label}`), 'new');
    await expect(new SafetensorsWriter(fresh).declare(spec).write(produce)).rejects.toThrow(type);
    expect(await readdir(join(fresh, '..'))).toEqual([]);
    const old = await temp.sub(`keep-${label}`);
    await writeFile(join(old, 'model.safetensors'), 'old');
    await expect(new SafetensorsWriter(old).declare(spec).write(produce)).rejects.toThrow(type);
    expect(await readdir(old)).toEqual(['model.safetensors']);
    expect(await readFile(join(old, 'model.safetensors'), 'utf8')).toBe('old');
  });

  it('stops at an abort and leaves nothing behind', async () => {
    const to = join(await temp.sub('abort'), 'new');
    const stop = new AbortController();
    const writer = new SafetensorsWriter(to, { signal: stop.signal }).declare({ ...spec, name: 'a' }).declare(spec);
    let calls = 0;
    const reason = new Error('enough');
    await expect(writer.write(() => (calls++, stop.abort(reason), new Uint8Array(8)))).rejects.toBe(reason);
    expect(calls).toBe(1);
    await expect(stat(to)).rejects.toThrow();
    expect(await readdir(join(to, '..'))).toEqual([]);
  });

  it('replaces an earlier save, stale shards and index included, and leaves other files alone', async () => {
    const to = await temp.sub('replace');
    const many = new SafetensorsWriter(to, { maxShardSize: 8 })
      .declare({ ...spec, name: 'a' })
      .declare(spec)
      .addFile('config.json', 'x');
    await many.write(() => new Uint8Array(8));
    await writeFile(join(to, 'model-notes.safetensors'), 'mine');
    expect(await readdir(to)).toHaveLength(5);
    await new SafetensorsWriter(to).declare(spec).write(() => new Uint8Array(8));
    expect((await readdir(to)).sort()).toEqual(['config.json', 'model-notes.safetensors', 'model.safetensors']);
  });

  it('refuses wrong declarations', () => {
    const writer = () => new SafetensorsWriter(temp.path);
    expect(() => writer().declare(spec).declare(spec)).toThrow(/twice/);
    expect(() => writer().declare({ ...spec, name: '__metadata__' })).toThrow(ConfigError);
    expect(() => writer().declare({ ...spec, name: '\ud800' })).toThrow(ConfigError);
    expect(() => writer().declare({ ...spec, shape: [-1] })).toThrow(ConfigError);
    expect(() => writer().declare({ ...spec, shape: [2 ** 40, 2 ** 40] })).toThrow(ConfigError);
    expect(() => writer().addFile('../x', '')).toThrow(ConfigError);
    expect(() => new SafetensorsWriter(temp.path, { baseName: 'a/b' })).toThrow(ConfigError);
    expect(() => new SafetensorsWriter(temp.path, { maxShardSize: '5 bananas' })).toThrow(ConfigError);
  });
});
