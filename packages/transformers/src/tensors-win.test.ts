// Checkpoints whose config.json says otherwise than their tensors, and folders that are not what they should be.
import { spawnSync } from 'node:child_process';
import { mkdir, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  AutoConfig,
  AutoModelForCausalLM,
  AutoTokenizer,
  CheckpointError,
  openCheckpoint,
  planFor,
  QError,
  type LoadModelOptions,
} from './index.js';
import { changedCheckpoint, temporaryFolders, unpackCheckpoint, type Change, type Config } from './testing.js';

const temporary = temporaryFolders();
const ids = [[1, 17, 30, 4, 99]];
const options: LoadModelOptions = { threads: 1 };

const configIn = async (folder: string) => JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Config;
const changed = (name: string, change: Change) => changedCheckpoint(name, temporary, change);

interface Loaded {
  readonly logits: readonly number[];
  readonly warnings: readonly string[];
  readonly linears: Readonly<Record<string, number>>;
  readonly method: string | null;
  readonly tied: boolean;
  /** config.json as it is saved. */
  readonly saved: Config;
  readonly out: string;
}

async function load(folder: string, more: LoadModelOptions = {}): Promise<Loaded> {
  await using model = await AutoModelForCausalLM.fromPretrained(folder, { ...options, ...more });
  using output = model.forward({ inputIds: ids });
  const out = join(await temporary('saved'), 'out');
  await model.savePretrained(out);
  return {
    logits: [...((await output.logits.data()) as Float32Array)],
    warnings: model.warnings,
    linears: model.summary().linears,
    method: model.quantizationConfig?.quantizationMethod() ?? null,
    tied: model.config.tieWordEmbeddings,
    saved: await configIn(out),
    out,
  };
}
/** Loads, saves, loads what was saved without a warning, and compares. */
async function loadTwice(folder: string): Promise<Loaded> {
  const first = await load(folder);
  const second = await load(first.out);
  expect(second.warnings).toEqual([]);
  expect(second.logits).toEqual(first.logits);
  return first;
}
const errorOf = async (run: () => Promise<unknown>): Promise<QError> => {
  const error: unknown = await run().then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(QError);
  return error as QError;
};
const loadError = (folder: string, more?: LoadModelOptions) => errorOf(() => load(folder, more));

const nf4 = { quant_method: 'bitsandbytes', load_in_4bit: true, bnb_4bit_quant_type: 'nf4' };

describe('quantization', () => {
  it('a left-over quantization_config makes no dense model quantized', async () => {
    const plain = await load(await unpackCheckpoint('llama', await temporary()));
    const folder = await changed('llama', { config: (config) => (config.quantization_config = nf4) });
    const { linears, method, warnings, logits, saved } = await loadTwice(folder);
    expect([Object.keys(linears), method, saved.quantization_config]).toEqual([['dense'], null, undefined]);
    expect(warnings).toEqual([expect.stringMatching(/says nf4, but no weight is quantized/)]);
    expect(logits).toEqual(plain.logits);
  });

  it('a left-over quantization_config of a method that Q does not know neither', async () => {
    for (const left of [{ quant_method: 'awq', bits: 4 }, { quant_method: 'fp8' }, { bits: 4, group_size: 64 }]) {
      const folder = await changed('llama', { config: (config) => (config.quantization_config = left) });
      const { linears, method, warnings, saved } = await loadTwice(folder);
      expect([Object.keys(linears), method, saved.quantization_config]).toEqual([['dense'], null, undefined]);
      expect(warnings).toEqual([expect.stringMatching(/no weight is quantized: the model counts as dense, although/)]);
      const quantized = await changed('bnb-nf4', { config: (config) => (config.quantization_config = left) });
      expect((await loadError(quantized)).message).toMatch(/quant/);
      expect((await errorOf(() => AutoConfig.fromPretrained(folder))).message).toMatch(/quant/);
    }
  });

  it('nor what other programs write beside it', async () => {
    for (const key of ['quantization', 'compression_config', 'hqq_config']) {
      const folder = await changed('llama', { config: (config) => (config[key] = { group_size: 64, bits: 4 }) });
      const { linears, warnings, saved } = await loadTwice(folder);
      expect([Object.keys(linears), saved[key]]).toEqual([['dense'], undefined]);
      expect(warnings).toEqual([expect.stringMatching(/no weight is quantized: the model counts as dense, although/)]);
    }
  });

  it('... and the caller may quantize it', async () => {
    const folder = await changed('llama', { config: (config) => (config.quantization_config = nf4) });
    const { method, linears } = await load(folder, { loadIn8bit: true });
    expect([method, linears.int8 > 0]).toEqual(['llm_int8', true]);
  });

  it.each([
    ['bnb-nf4', 'nf4'],
    ['bnb-int8', 'llm_int8'],
  ])('%s without a quantization_config is recognised', async (name, wanted) => {
    const stated = await load(await unpackCheckpoint(name, await temporary()));
    const folder = await changed(name, { config: (config) => delete config.quantization_config });
    const { method, warnings, logits, saved } = await loadTwice(folder);
    expect(method).toBe(wanted);
    expect(warnings).toEqual([expect.stringMatching(/no quantization_config that says so.*are stored as/)]);
    expect(logits).toEqual(stated.logits);
    expect(saved.quantization_config).toMatchObject({ quant_method: 'bitsandbytes' });
  });

  it('weights of another save than config.json are refused', async () => {
    const folder = await changed('bnb-int8', { config: (config) => (config.quantization_config = nf4) });
    const error = await loadError(folder);
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.message).toMatch(/config\.json says 4 bit, the weights have 8.*different saves/);
  });
});

describe('planFor of a folder sees what loading finds', () => {
  const budget = { maxMemory: { 0: '1GiB' } } as const;
  const planned = async (folder: string, more: object = {}) => {
    const { size, converted, messages } = await planFor(folder, { ...budget, ...more });
    const lines = messages.flatMap((message) => (message.code === 'checkpoint' ? [message.text] : []));
    return { size, converted, lines };
  };

  it('a left-over quantization_config, known or not, plans as dense', async () => {
    const dense = await planned(await unpackCheckpoint('llama', await temporary()));
    expect([dense.converted, dense.lines]).toEqual([null, []]);
    for (const left of [nf4, { quant_method: 'awq', bits: 4 }, { quant_method: 'hqq' }]) {
      const folder = await changed('llama', { config: (config) => (config.quantization_config = left) });
      const { size, converted, lines } = await planned(folder);
      expect([size, converted, lines]).toEqual([dense.size, null, [expect.stringMatching(/no weight is quantized/)]]);
      expect((await planned(folder, { loadIn8bit: true })).size).toBeLessThan(size);
    }
  });

  it('quantized tensors without a quantization_config plan as quantized, of the layers that are', async () => {
    for (const name of ['bnb-nf4', 'bnb-int8']) {
      const stated = await planned(await unpackCheckpoint(name, await temporary()));
      const folder = await changed(name, { config: (config) => delete config.quantization_config });
      const { size, converted, lines } = await planned(folder);
      expect([size, converted]).toEqual([stated.size, stated.converted]);
      expect(lines).toEqual([expect.stringMatching(/no quantization_config that says so/)]);
      const { linears } = await load(folder);
      expect(converted).toHaveLength(linears.nf4 ?? linears.int8);
      const other = name === 'bnb-nf4' ? { loadIn8bit: true } : { loadIn4bit: true };
      expect((await errorOf(() => planFor(folder, { ...budget, ...other }))).message).toMatch(/quantized already/);
    }
  });

  it('a head of its own under a tied flag has its bytes', async () => {
    const config = (tied: boolean) => (each: Config) => void (each.tie_word_embeddings = tied);
    const apart = await planned(await changed('llama', { config: config(false) }));
    const same = await changed('llama', {
      config: config(true),
      rename: (name) => (name === 'lm_head.weight' ? undefined : name),
    });
    const tied = await planned(same);
    const own = await planned(await changed('llama', { config: config(true) }));
    expect(own.size).toBe(apart.size);
    expect(tied.size).toBeLessThan(own.size);
    expect(own.lines).toEqual([expect.stringMatching(/not tied/)]);
  });

  it('the dtype of the tensors counts where config.json says none', async () => {
    const config = (each: Config) => void [delete each.torch_dtype, delete each.dtype];
    const stated = await planned(await unpackCheckpoint('llama', await temporary()));
    const folder = await changed('llama', { config });
    const { size } = await planned(folder);
    expect(size).toBe((await planned(folder, { torchDtype: 'float32' })).size);
    expect(size).toBe(stated.size);
  });

  it('without weights the config decides; damaged ones are what loading would say', async () => {
    const folder = await unpackCheckpoint('llama', await temporary());
    const { size } = await planned(folder);
    await truncate(join(folder, 'model.safetensors'), 5000);
    const error = await errorOf(() => planFor(folder, budget));
    expect(error.message).toBe((await loadError(folder)).message);
    await rm(join(folder, 'model.safetensors'));
    expect(await planned(folder)).toEqual({ size, converted: null, lines: [] });
    await writeFile(
      join(folder, 'config.json'),
      JSON.stringify({ ...(await configIn(folder)), quantization_config: { quant_method: 'awq' } }),
    );
    expect((await errorOf(() => planFor(folder, budget))).message).toMatch(/AWQ/);
  });

  it('the options of both are known, those of a folder to no config', async () => {
    const folder = await changed('llama', { config: (each) => (each.logit_scale = 3) });
    expect((await errorOf(() => planFor(folder, budget))).message).toMatch(/logit_scale/);
    const { lines } = await planned(folder, { ignoreConfigKeys: ['logit_scale'] });
    expect(lines).toEqual([expect.stringMatching(/logit_scale is ignored/)]);
    const config = await AutoConfig.fromPretrained(folder, { ignoreConfigKeys: ['logit_scale'] });
    const stray = { ...budget, localFilesOnly: true };
    expect((await errorOf(() => planFor(config, stray))).message).toMatch(/localFilesOnly/);
    expect((await errorOf(() => planFor(folder, { ...budget, devicemap: 1 } as object))).message).toMatch(/deviceMap/);
  });

  it('a snapshot of the cache, whole or with a part of its weights', async () => {
    const cacheDir = await temporary('cache');
    const commit = 'c'.repeat(40);
    const repo = join(cacheDir, 'models--someone--small');
    const snapshot = join(repo, 'snapshots', commit);
    await mkdir(join(repo, 'refs'), { recursive: true });
    await mkdir(join(repo, 'snapshots'));
    await writeFile(join(repo, 'refs', 'main'), commit);
    const source = await changed('llama', { config: (config) => (config.quantization_config = nf4) });
    await rename(source, snapshot);
    const local = { cacheDir, localFilesOnly: true };
    const whole = await planned('someone/small', local);
    expect([whole.converted, whole.lines]).toEqual([null, [expect.stringMatching(/no weight is quantized/)]]);
    await rm(join(snapshot, 'model.safetensors'));
    const weight_map = { 'model.norm.weight': 'model-00001-of-00002.safetensors' };
    await writeFile(join(snapshot, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map }));
    const part = await planned('someone/small', local);
    expect(part.converted).not.toBeNull();
    expect(part.lines).toEqual([expect.stringMatching(/lacks a part of the weights/)]);
  });
});

describe('names and ties', () => {
  const [embed, head] = ['model.embed_tokens.weight', 'lm_head.weight'];
  const tie = (config: Config) => void (config.tie_word_embeddings = true);
  const untie = (config: Config) => void (config.tie_word_embeddings = false);
  const dropHead = (name: string) => (name === head ? undefined : name);

  it('a head of its own under a tied flag is used, and saved as such', async () => {
    const plain = await load(await changed('llama', { config: untie }));
    const { logits, warnings, tied, saved } = await loadTwice(await changed('llama', { config: tie }));
    expect(logits).toEqual(plain.logits);
    expect([tied, saved.tie_word_embeddings]).toEqual([false, false]);
    expect(warnings).toEqual([expect.stringMatching(/ties lm_head\.weight .* not tied/)]);
  });

  it('an equal head under a tied flag is the embedding', async () => {
    const tied = await loadTwice(await changed('llama', { config: tie, rename: dropHead }));
    const both = await loadTwice(await changed('llama', { config: tie, rename: dropHead, also: { [head]: embed } }));
    expect(both.logits).toEqual(tied.logits);
    expect([both.tied, both.warnings]).toEqual([true, []]);
    const swapped = await loadTwice(
      await changed('llama', { config: tie, rename: (name) => (name === embed ? head : dropHead(name)) }),
    );
    expect(swapped.logits).toEqual(tied.logits);
    expect(swapped.warnings).toEqual([expect.stringMatching(/embed_tokens\.weight is not stored; it is read from/)]);
  });

  it('no head and no tie is an error that says why', async () => {
    const error = await loadError(await changed('llama', { config: untie, rename: dropHead }));
    expect(error.message).toMatch(/lm_head\.weight is not stored.*random numbers.*tie_word_embeddings/);
  });

  it('the names of a wrapper', async () => {
    const plain = await load(await unpackCheckpoint('llama', await temporary()));
    const { logits, warnings } = await loadTwice(await changed('llama', { rename: (name) => `module.${name}` }));
    expect(logits).toEqual(plain.logits);
    expect(warnings).toEqual([expect.stringMatching(/are named with/)]);
  });

  it.each([
    ['llama', 'model.', ''],
    ['opt', 'model.decoder.', 'decoder.'],
    ['opt', 'model.decoder.', 'model.'],
    ['opt', 'model.decoder.', ''],
    ['opt.int8', 'model.decoder.', 'decoder.'],
    ['bloom', 'transformer.', ''],
  ])('%s: "%s" of names may be "%s", and is saved as in Python, with it', async (name, path, front) => {
    const source = await unpackCheckpoint(name, await temporary());
    const plain = await load(source);
    const rename = (each: string) => (each.startsWith(path) ? front + each.slice(path.length) : each);
    const { logits, warnings, out } = await loadTwice(await changed(name, { rename }));
    expect(logits).toEqual(plain.logits);
    expect(warnings).toEqual([]);
    await using before = await openCheckpoint(source);
    await using after = await openCheckpoint(out);
    expect(new Set(after.tensors.keys())).toEqual(new Set(before.tensors.keys()));
  });

  it('names of which a part is under another path are refused', async () => {
    const rename = (each: string) => (each.includes('layers.1.') ? each.replace('model.decoder.', 'decoder.') : each);
    const error = await loadError(await changed('opt', { rename }));
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.message).toMatch(/named in more than one way/);
  });

  it('quantized weights under other names', async () => {
    const plain = await load(await unpackCheckpoint('bnb-nf4', await temporary()));
    const { logits } = await loadTwice(
      await changed('bnb-nf4', { rename: (name) => name.replace(/^model\./, 'base_model.model.') }),
    );
    expect(logits).toEqual(plain.logits);
  });

  it('tensors that the model does not have are a line', async () => {
    const { warnings } = await loadTwice(
      await changed('llama', {
        also: { 'v_head.summary.weight': 'model.norm.weight', ['__proto__']: 'model.norm.weight' },
      }),
    );
    expect(warnings).toEqual([expect.stringMatching(/^2 tensors .*v_head\.summary\.weight/)]);
  });
});

describe('numbers', () => {
  const spoil = (name: string, value: number) => (each: string, bytes: Uint8Array) => {
    if (each !== name) return bytes;
    const copy = bytes.slice();
    new DataView(copy.buffer).setFloat32(40, value, true);
    return copy;
  };
  it.each([NaN, Infinity])('%d in a weight', async (value) => {
    const name = 'model.layers.1.mlp.up_proj.weight';
    const folder = await changed('llama', { bytes: spoil(name, value) });
    expect((await loadError(folder, { checkFinite: true })).message).toMatch(new RegExp(`${name}, position 10`));
    expect((await loadError(folder, { loadIn4bit: true })).message).toContain(name);
    expect((await loadError(folder, { loadIn8bit: true })).message).toContain(name);
  });
  it('a scale that is none', async () => {
    const name = 'model.layers.0.mlp.up_proj.weight.absmax';
    expect((await loadError(await changed('bnb-nf4', { bytes: spoil(name, NaN) }))).message).toContain(name);
  });
});

describe('a file that changes under a loaded model', () => {
  it.each([
    ['cut short', (path: string) => truncate(path, 4096), /model\.safetensors was cut short/],
    ['written to', async (path: string) => writeFile(path, await readFile(path), { flag: 'r+' }), /was written to/],
  ])('%s: every later result is an error that names it, and the model can be disposed', async (_, change, message) => {
    const folder = await unpackCheckpoint('llama', await temporary());
    const model = await AutoModelForCausalLM.fromPretrained(folder, options);
    const generate = async () => model.generate({ inputIds: ids, maxNewTokens: 3 });
    await generate();
    await new Promise((resolve) => setTimeout(resolve, 20)); // the clock of files ticks every few ms
    await change(join(folder, 'model.safetensors'));
    for (let i = 0; i < 2; i++) expect((await errorOf(generate)).message).toMatch(message);
    expect((await errorOf(() => model.savePretrained(`${folder}-copy`))).message).toMatch(message);
    await model.dispose();
  });

  it('a save over the folder it was loaded from changes nothing for it', async () => {
    const folder = await unpackCheckpoint('llama', await temporary());
    await using model = await AutoModelForCausalLM.fromPretrained(folder, options);
    const tokens = async () => (await model.generate({ inputIds: ids, maxNewTokens: 5 })).sequences;
    const before = await tokens();
    await model.savePretrained(folder, { maxShardSize: '100KB' });
    expect(await tokens()).toEqual(before);
  });
});

describe('files', () => {
  it('saving copies what belongs to the tokenizer, and lets nothing of another one stay', async () => {
    const folder = await unpackCheckpoint('llama', await temporary());
    const files = {
      'merges.txt': '#version: 0.2\r\n',
      'additional_chat_templates/rag.jinja': 'R',
      'spiece.model': '\0\xff',
    };
    await mkdir(join(folder, 'additional_chat_templates'));
    for (const [name, content] of Object.entries({ ...files, LICENSE: 'of the source' }))
      await writeFile(join(folder, name), content, 'latin1');
    const out = await temporary('out');
    await mkdir(join(out, 'additional_chat_templates'));
    for (const name of ['vocab.txt', 'chat_template.jinja', 'additional_chat_templates/stale.jinja', 'mine.txt'])
      await writeFile(join(out, name), 'of another model');
    await using model = await AutoModelForCausalLM.fromPretrained(folder, options);
    await model.savePretrained(out);
    for (const [name, content] of Object.entries(files))
      expect(await readFile(join(out, name), 'latin1')).toBe(content);
    const own = ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'];
    for (const name of own)
      expect((await readFile(join(out, name))).equals(await readFile(join(folder, name)))).toBe(true);
    expect((await readdir(out, { recursive: true })).sort()).toEqual(
      [
        ...Object.keys(files),
        ...own,
        ...['additional_chat_templates', 'config.json', 'generation_config.json', 'mine.txt', 'model.safetensors'],
      ].sort(),
    );
    await model.savePretrained(folder); // over itself
    expect(await readFile(join(folder, 'LICENSE'), 'utf8')).toBe('of the source');
    expect(await readFile(join(folder, 'additional_chat_templates/rag.jinja'), 'utf8')).toBe('R');
  });

  const pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n';
  it.each(['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json'])(
    '%s that is a FIFO, endless, or a pointer',
    async (name) => {
      const folder = await unpackCheckpoint('llama', await temporary());
      if (name === 'tokenizer_config.json') await writeFile(join(folder, 'tokenizer.json'), '{}');
      const path = join(folder, name);
      // A tokenizer that cannot be read does not keep a model from being loaded.
      const readers = name.startsWith('tokenizer')
        ? [AutoTokenizer]
        : [AutoModelForCausalLM, ...(name === 'config.json' ? [AutoConfig] : [])];
      const fail = async (message: RegExp) => {
        for (const reader of readers) {
          const error = await errorOf(() => reader.fromPretrained(folder));
          expect(error.message).toMatch(message);
          expect(error.message).toContain(name);
        }
      };
      await rm(path, { force: true });
      expect(spawnSync('mkfifo', [path]).status).toBe(0);
      await fail(/FIFO/);
      await rm(path);
      await writeFile(path, '{');
      await truncate(path, 600_000_000);
      await fail(/absurdly long/);
      await writeFile(path, pointer);
      await fail(/Git LFS pointer/);
      await writeFile(path, '<!doctype html><html>');
      await fail(/HTML/);
      await rm(path);
      await mkdir(path);
      await fail(/a folder/);
    },
  );

  it('a folder in which a save has not ended is refused by every reader', async () => {
    const folder = await unpackCheckpoint('llama', await temporary());
    const staged = join(folder, '.q-save-00000000-1-0-0.moving', 'new');
    await mkdir(staged, { recursive: true });
    await writeFile(join(staged, 'config.json'), '{}');
    for (const reader of [AutoConfig, AutoTokenizer, AutoModelForCausalLM])
      expect((await errorOf(() => reader.fromPretrained(folder))).message).toMatch(
        /a save into this folder has not ended/,
      );
  });

  it('an abort stops at the first file', async () => {
    const folder = await unpackCheckpoint('llama', await temporary());
    const reason = new Error('stop');
    await expect(AutoConfig.fromPretrained(folder, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});
