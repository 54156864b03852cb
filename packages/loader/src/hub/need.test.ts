import { chmod, lstat, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { CheckpointError, ConfigError } from '@q/config';
import { temporary } from '../testing.js';
import { resolveModelFolder, type ResolveModelOptions } from './resolve.js';
import { bytesOf, commit, fakeHub, sendJson, weights, type Files, type TestServer } from './testing.js';

const temp = temporary();
const tokenizer = { 'tokenizer_config.json': '{}', 'tokenizer.json': '{"model":{}}' };
const shards = {
  'model.safetensors.index.json':
    '{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}',
  'model-00001-of-00002.safetensors': weights(100),
  'model-00002-of-00002.safetensors': weights(200, 2),
};
const whole: Files = { 'config.json': '{}', ...tokenizer, 'model.safetensors': weights(300) };
const older = 'b'.repeat(40);

let hub: TestServer;
let cacheDir: string;
let warnings: string[];
const offer = async (files: Files) => {
  await hub?.close();
  hub = await fakeHub(files);
  vi.stubEnv('HF_ENDPOINT', hub.endpoint);
};
beforeEach(async () => {
  await temp.ready;
  cacheDir = await mkdtemp(join(temp.path, 'cache-'));
  warnings = [];
  for (const name of ['HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE', 'HF_TOKEN', 'HTTP_PROXY', 'http_proxy', 'ALL_PROXY'])
    vi.stubEnv(name, undefined);
  vi.stubEnv('HF_HUB_DISABLE_IMPLICIT_TOKEN', '1');
  await offer(whole);
});
afterEach(async () => {
  await hub.close();
  vi.unstubAllEnvs();
});

const resolve = (options: ResolveModelOptions = {}) =>
  resolveModelFolder('org/model', {
    cacheDir,
    onWarning: (line) => warnings.push(line),
    ...options,
    limits: { backoffMs: 1, ...options.limits },
  });
const namesIn = async (folder: string) => (await readdir(folder, { recursive: true })).sort();
const fetched = () =>
  hub.seen.filter(({ path }) => path.includes('/resolve/')).map(({ path }) => path.split('/').pop());

/** A snapshot in the cache, as plain files. */
async function cached(files: Files, { at = commit, ref = 'main' } = {}): Promise<string> {
  const repo = join(cacheDir, 'models--org--model');
  const folder = join(repo, 'snapshots', at);
  for (const [name, content] of Object.entries(files)) {
    await mkdir(join(folder, name, '..'), { recursive: true });
    await writeFile(join(folder, name), bytesOf(content));
  }
  await mkdir(join(repo, 'refs'), { recursive: true });
  await writeFile(join(repo, 'refs', ref), at);
  return folder;
}

describe('files by need', () => {
  const everything: Files = {
    ...whole,
    'special_tokens_map.json': '{}',
    'merges.txt': '',
    'spiece.model': 'x',
    'additional_chat_templates/rag.jinja': '{{ x }}',
    'additional_chat_templates/notes.md': 'x',
    'preprocessor_config.json': '{}',
    'flax_model.msgpack.index.json': '{}',
    'onnx/model.onnx': 'x',
    'README.md': 'x',
  };
  const ofTokenizer = [
    'additional_chat_templates',
    'additional_chat_templates/rag.jinja',
    'config.json',
    'merges.txt',
    'special_tokens_map.json',
    'spiece.model',
    'tokenizer.json',
    'tokenizer_config.json',
  ];
  it.each([
    ['config', ['config.json']],
    ['tokenizer', ofTokenizer],
    ['settings', [...ofTokenizer, 'preprocessor_config.json']],
    ['model', [...ofTokenizer, 'model.safetensors', 'preprocessor_config.json']],
  ] as const)('%s', async (files, expected) => {
    await offer(everything);
    expect(await namesIn(await resolve({ files }))).toEqual([...expected].sort());
  });

  it.each([
    [{ 'tokenizer.json': '{}' }],
    [{ 'tokenizer.model': 'x', 'pytorch_model.bin': 'x' }],
    [{ 'vocab.json': '{}', 'merges.txt': '' }],
    [{ 'vocab.txt': 'x', 'config.json': '{}' }],
  ] as Files[][])('a tokenizer needs no weights, and is found again offline: %j', async (files) => {
    await offer(files);
    const folder = await resolve({ files: 'tokenizer' });
    expect(await namesIn(folder)).toEqual(
      Object.keys(files)
        .filter((name) => !name.endsWith('.bin'))
        .sort(),
    );
    expect(await resolve({ files: 'tokenizer', localFilesOnly: true })).toBe(folder);
    await expect(resolve({ localFilesOnly: true })).rejects.toThrow(/only partly.*model.safetensors/);
  });

  it.each([
    [{ 'config.json': '{}', 'vocab.json': '{}' }, 'tokenizer', /no tokenizer.json/],
    [{ 'tokenizer.json': '{}' }, 'config', /no config.json/],
    [{ 'config.json': '{}' }, 'model', /no weights in safetensors or of PyTorch/],
  ] as const)('says what the hub lacks: %j for %s', async (files, need, message) => {
    await offer(files);
    await expect(resolve({ files: need })).rejects.toThrow(message);
  });

  it.each([
    [{ files: 'weights' }, /files is none of the sets/],
    [{ revision: 5 }, /revision must be a string/],
    [{ cacheDir: ' ' }, /cacheDir is empty/],
    [{ localFilesOnly: 'false' }, /localFilesOnly must be a boolean/],
    [{ token: true }, /token is neither/],
    [{ fetch: 'https://x' }, /fetch must be a function/],
  ])('refuses %j', async (options, message) => {
    const call = resolve(options as never);
    await expect(call).rejects.toThrow(ConfigError);
    await expect(call).rejects.toThrow(message);
  });
  it.each([undefined, null, 7, {}])('refuses %s for a model', async (id) => {
    await expect(resolveModelFolder(id as never)).rejects.toThrow(ConfigError);
  });
});

describe('a snapshot that is not whole', () => {
  const { 'model.safetensors': _, ...noWeights } = whole;
  it.each([
    ['a shard', { ...noWeights, ...shards }, 'model-00002-of-00002.safetensors'],
    ['the index', { ...noWeights, ...shards }, 'model.safetensors.index.json'],
    ['the only weights', whole, 'model.safetensors'],
    ['the tokenizer', whole, 'tokenizer.json'],
    ['the config', whole, 'config.json'],
  ] as [string, Files, string][])('is completed: %s', async (__, files, missing) => {
    await offer(files);
    const { [missing]: ___, ...present } = files;
    const folder = await cached(present);
    for (const revision of [commit, 'main']) {
      await rm(join(folder, missing), { force: true });
      hub.seen.length = 0;
      expect(await resolve({ revision })).toBe(folder);
      expect(fetched().filter((name) => name !== missing)).toEqual([]);
      expect((await lstat(join(folder, missing))).isSymbolicLink()).toBe(true);
    }
  });

  it.each([401, 503])('names what is missing when the hub answers %i', async (status) => {
    const { 'model-00001-of-00002.safetensors': __, ...present } = { ...noWeights, ...shards };
    await cached(present);
    hub.hook = (___, ____, response) => sendJson(response, { error: 'no' }, status);
    for (const revision of [commit, 'main'])
      await expect(resolve({ revision })).rejects.toThrow(
        new RegExp(`only partly.*model-00001-of-00002.safetensors.*status ${status}`),
      );
    await expect(resolve({ files: 'tokenizer' })).resolves.toContain(commit);
  });

  it('may have no tokenizer: the hub is asked once, and without a hub a line says so', async () => {
    const { 'tokenizer.json': __, 'tokenizer_config.json': ___, ...bare } = whole;
    await offer(bare);
    const folder = await cached(bare);
    expect(await resolve({ revision: commit, localFilesOnly: true })).toBe(folder);
    expect(warnings.splice(0)).toEqual([expect.stringMatching(/has no tokenizer/)]);
    expect(await resolve({ revision: commit })).toBe(folder);
    expect(hub.seen).toHaveLength(1);
    expect(await resolve({ revision: commit })).toBe(folder);
    expect(await resolve({ revision: commit, localFilesOnly: true })).toBe(folder);
    expect(hub.seen).toHaveLength(1);
    expect(warnings).toEqual([]);
  });
});

describe('a whole snapshot', () => {
  it.each([401, 403, 429, 500, 502, 503, 504])('is used when the hub answers %i', async (status) => {
    const folder = await cached(whole, { at: older });
    hub.hook = (_, __, response) => sendJson(response, { error: 'no' }, status, { 'retry-after': '30' });
    expect(await resolve()).toBe(folder);
    expect(warnings).toEqual([expect.stringMatching(new RegExp(`${older} is used, because.*status ${status}`))]);
    expect(hub.seen.length).toBeLessThanOrEqual(2);
  });

  it.each([
    ['the list fails', '/tree/'],
    ['a file fails', '/model.safetensors'],
  ])('is used when %s', async (_, part) => {
    const folder = await cached(whole, { at: older });
    hub.hook = (path, __, response) => path.includes(part) && sendJson(response, {}, 503);
    expect(await resolve()).toBe(folder);
    expect(warnings).toHaveLength(1);
    expect(await readFile(join(cacheDir, 'models--org--model', 'refs', 'main'), 'utf8')).toBe(older);
  });

  it('is used when the repository was deleted, as in Python', async () => {
    const folder = await cached(whole);
    hub.hook = (_, __, response) =>
      sendJson(response, { error: 'Repository not found' }, 404, { 'x-error-code': 'RepoNotFound' });
    expect(await resolve()).toBe(folder);
    expect(warnings).toHaveLength(1);
  });

  it('is used when something else answers in place of the hub', async () => {
    const folder = await cached(whole);
    hub.hook = (_, __, response) => (response.end('<html>hotel wifi</html>'), true);
    expect(await resolve()).toBe(folder);
    expect(warnings).toEqual([expect.stringMatching(/makes no sense/)]);
  });

  it('is not used when the hub says that there is no such revision, or sends something wrong', async () => {
    await cached(whole, { at: older });
    for (const headers of [{}, { 'x-error-code': 'RevisionNotFound' }]) {
      hub.hook = (_, __, response) => sendJson(response, { error: 'not found' }, 404, headers);
      await expect(resolve()).rejects.toThrow(/no such model/);
    }
    hub.hook = (path, _, response) => path.endsWith('.safetensors') && (response.end(weights(300, 9)), true);
    await expect(resolve()).rejects.toThrow(/damaged/);
  });

  it('needs no hub for its commit, and none in offline mode, whatever the option says', async () => {
    const folder = await cached(whole);
    expect(await resolve({ revision: commit })).toBe(folder);
    for (const name of ['HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE']) {
      vi.stubEnv(name, 'yes');
      expect(await resolve({ localFilesOnly: false })).toBe(folder);
      await expect(resolveModelFolder('org/else', { cacheDir, localFilesOnly: false })).rejects.toThrow(
        new RegExp(`${name} is set`),
      );
      vi.stubEnv(name, undefined);
    }
    expect(hub.seen).toEqual([]);
  });
});

describe('a cache that is read-only', () => {
  /** Runs as a user that may not write there; root may everywhere. */
  async function asReader<T>(run: () => Promise<T>): Promise<T> {
    const isRoot = process.getuid?.() === 0;
    const paths = [cacheDir, ...(await readdir(cacheDir, { recursive: true })).map((name) => join(cacheDir, name))];
    const modes = await Promise.all(paths.map(async (path) => ({ path, mode: (await lstat(path)).mode })));
    for (const { path } of modes) await chmod(path, 0o555);
    await chmod(temp.path, 0o755);
    if (isRoot) process.seteuid?.(65534);
    try {
      return await run();
    } finally {
      if (isRoot) process.seteuid?.(0);
      for (const { path, mode } of modes) await chmod(path, mode & 0o777);
    }
  }

  it('works where nothing has to be written', async () => {
    const folder = await cached(whole);
    expect(await asReader(() => resolve())).toBe(folder);
    expect(await asReader(() => resolve({ revision: 'v2' }))).toBe(folder); // no ref of this name yet
    expect(warnings).toEqual([]);
  });

  it('gives its snapshot, with a line, where the hub has a newer one; else says what cannot be written', async () => {
    const folder = await cached(whole, { at: older });
    expect(await asReader(() => resolve())).toBe(folder);
    expect(warnings).toEqual([expect.stringMatching(/cannot be written to/)]);
    await rm(join(folder, 'model.safetensors'));
    const error = await asReader(() => resolve().catch((caught: unknown) => caught as Error));
    expect(error).toBeInstanceOf(CheckpointError);
    expect(String(error)).toMatch(/only partly.*model.safetensors.*cannot be written to/);
    await rm(join(cacheDir, 'models--org--model'), { recursive: true });
    expect(String(await asReader(() => resolve().catch((caught: unknown) => caught as Error)))).toMatch(
      /cannot be written to.*cacheDir/,
    );
  });
});
