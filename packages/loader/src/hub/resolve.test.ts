import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, readdir, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { CheckpointError, ConfigError, UnsupportedError } from '@q/config';
import { openCheckpoint } from '../checkpoint.js';
import { fileOf, temporary } from '../testing.js';
import { retryAfter } from './client.js';
import type { DownloadProgress } from './download.js';
import { hubEnvironment, hubToken } from './env.js';
import { resolveModelFolder } from './resolve.js';

const temp = temporary();
const commit = 'a1b2c3d4e5'.repeat(4);
const other = 'a1b2ffffff'.repeat(4);
const token = 'hf_secretsecretsecret';
const u8 = (begin: number, end: number) => ({ dtype: 'U8', shape: [end - begin], data_offsets: [begin, end] });

/** A repository on the test server. */
interface Remote {
  files: Record<string, Uint8Array>;
  status?: number;
  damage?: boolean;
}
const text = (value: string) => new TextEncoder().encode(value);
const index = text(
  JSON.stringify({ weight_map: { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' } }),
);
const shards = {
  'model-00001-of-00002.safetensors': fileOf({ a: u8(0, 1) }, 1),
  'model-00002-of-00002.safetensors': fileOf({ b: u8(0, 2) }, 2),
};
const surplus = {
  'README.md': text('x'),
  'model.fp16.safetensors': fileOf({}, 0),
  'pytorch_model.bin': text('x'),
  'pytorch_model.bin.index.json': text('{}'),
  'tokenizer.json': text('{}'),
  'original/params.json': text('{}'),
};
const remotes: Record<string, Remote> = {
  'org/single': { files: { 'config.json': text('{}'), 'model.safetensors': fileOf({ a: u8(0, 3) }, 3), ...surplus } },
  'org/sharded': { files: { 'config.json': text('{}'), 'model.safetensors.index.json': index, ...shards } },
  'org/lost-shard': { files: { 'config.json': text('{}'), 'model.safetensors.index.json': index } },
  'org/gguf': { files: { 'config.json': text('{}'), 'model.gguf': text('x') } },
  'org/pickled': {
    files: { 'config.json': text('{}'), 'pytorch_model.bin': text('x'), 'training_args.bin': text('y') },
  },
  'org/damaged': {
    files: { 'config.json': text('{}'), 'model.safetensors': fileOf({ a: u8(0, 3) }, 3) },
    damage: true,
  },
  'org/escape': { files: { '../../evil.json': text('{}'), 'model.safetensors': fileOf({}, 0) } },
  'org/gated': { files: {}, status: 403 },
  'org/private': { files: {}, status: 401 },
  'org/broken': { files: {}, status: 500 },
};

let server: Server;
let requests: { url: string; authorization?: string }[] = [];
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const sha1 = (bytes: Uint8Array) => createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');

beforeAll(async () => {
  await temp.ready;
  server = createServer((request, response) => {
    const url = decodeURIComponent(request.url ?? '');
    requests.push({ url, authorization: request.headers.authorization });
    const reply = (status: number, body: string | Uint8Array, headers = {}) =>
      void response.writeHead(status, headers).end(body);
    const json = (value: unknown, status = 200) =>
      reply(status, JSON.stringify(value), { 'Content-Type': 'application/json' });
    const api = /^\/api\/models\/(\w+\/[\w-]+)\/(revision|tree)\/([^?]+)/.exec(url);
    const file = /^\/(\w+\/[\w-]+)\/resolve\/([^/]+)\/(.+)$/.exec(url);
    const remote = remotes[(api ?? file)?.[1] ?? ''];
    if (!remote) return json({ error: `not found, you sent ${request.headers.authorization}` }, 404);
    if (remote.status) return json({ error: `no, you sent ${request.headers.authorization}` }, remote.status);
    if (api?.[2] === 'revision')
      return ['main', 'v1.0', commit].includes(api[3])
        ? json({ _id: '1', id: api[1], sha: commit, lastModified: 0 })
        : json({ error: 'Invalid rev id' }, 404);
    if (api) {
      const lfs = (path: string, bytes: Uint8Array) =>
        path.endsWith('.safetensors') ? { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 100 } } : {};
      const entries = Object.entries(remote.files).map(([path, bytes]) => ({
        type: 'file',
        path,
        size: bytes.length,
        oid: sha1(bytes),
        ...lfs(path, bytes),
      }));
      return json([...entries, { type: 'directory', path: 'original', size: 0, oid: '0' }]);
    }
    const bytes = remote.files[file?.[3] ?? '']?.slice();
    if (!bytes) return reply(404, '', { 'X-Error-Code': 'EntryNotFound' });
    if (remote.damage && file?.[3] === 'model.safetensors') bytes[bytes.length - 1] ^= 1;
    const range = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '');
    if (!range) return reply(200, bytes, { ETag: '"x"' });
    const end = Math.min(range[2] === '' ? bytes.length - 1 : Number(range[2]), bytes.length - 1);
    reply(206, bytes.subarray(Number(range[1]), end + 1), {
      ETag: '"x"',
      'Content-Range': `bytes ${range[1]}-${end}/${bytes.length}`,
    });
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
});
afterAll(() => new Promise((closed) => (server.closeAllConnections(), server.close(closed))));

let cacheDir: string;
beforeEach(async () => {
  requests = [];
  cacheDir = await mkdtemp(join(temp.path, 'cache-'));
  for (const name of [
    'HF_HOME',
    'HF_HUB_CACHE',
    'HUGGINGFACE_HUB_CACHE',
    'XDG_CACHE_HOME',
    'HF_HUB_OFFLINE',
    'TRANSFORMERS_OFFLINE',
    'HF_TOKEN',
    'HUGGING_FACE_HUB_TOKEN',
    'HF_TOKEN_PATH',
  ])
    vi.stubEnv(name, undefined);
  vi.stubEnv('HF_HUB_DISABLE_IMPLICIT_TOKEN', '1');
  vi.stubEnv('HF_ENDPOINT', `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
afterEach(() => vi.unstubAllEnvs());

/** A snapshot in the cache, files linked from blobs as Python does it. */
async function snapshot(id: string, hash: string, files: Record<string, Uint8Array>, ref?: string): Promise<string> {
  const repo = join(cacheDir, `models--${id.replace('/', '--')}`);
  const folder = join(repo, 'snapshots', hash);
  for (const made of [folder, join(repo, 'blobs'), join(repo, 'refs')]) await mkdir(made, { recursive: true });
  for (const [name, bytes] of Object.entries(files)) {
    await writeFile(join(repo, 'blobs', sha256(bytes)), bytes);
    await symlink(join('..', '..', 'blobs', sha256(bytes)), join(folder, name));
  }
  if (ref) await writeFile(join(repo, 'refs', ref), hash);
  return folder;
}
const complete = {
  'config.json': text('{}'),
  'model.safetensors': fileOf({ a: u8(0, 3) }, 3),
  'tokenizer.json': text('{"version":"1.0"}'),
};
const limits = { backoffMs: 1 };
const offline = { localFilesOnly: true } as const;

describe('folders', () => {
  it('takes a folder, relative too, and a file: URL', async () => {
    const folder = await temp.sub('plain');
    expect(await resolveModelFolder(folder)).toBe(folder);
    expect(await resolveModelFolder(pathToFileURL(folder))).toBe(folder);
    expect(await resolveModelFolder(pathToFileURL(folder).href)).toBe(folder);
    expect(await resolveModelFolder('./src')).toBe(resolve('src'));
    expect(await resolveModelFolder('src/hub')).toBe(resolve('src/hub'));
    expect(requests).toEqual([]);
  });
  it.each([
    ['/no/such/folder', CheckpointError, /no such folder.*\/no\/such\/folder/],
    ['./nope', CheckpointError, /no such folder/],
    ['a/b/c', CheckpointError, /no such folder/],
    ['', ConfigError, /neither/],
    ['package.json', CheckpointError, /this is a file/],
    ['org/na--me', ConfigError, /neither a folder nor the id/],
    ['org/..', ConfigError, /neither/],
    ['@q/nano', ConfigError, /neither/],
    ['https://me:pw@host/x', ConfigError, /only file: URLs.*\*\*\*@host/],
  ])('refuses "%s"', async (id, type, message) => {
    const resolving = resolveModelFolder(id, { cacheDir });
    await expect(resolving).rejects.toThrow(type);
    await expect(resolving).rejects.toThrow(message);
  });
});

describe('cache', () => {
  it('finds a snapshot by ref, commit and short hash, without the network', async () => {
    const folder = await snapshot('org/single', commit, complete, 'main');
    const find = (revision?: string) => resolveModelFolder('org/single', { cacheDir, revision, ...offline });
    expect(await find()).toBe(folder);
    expect(await find(commit)).toBe(folder);
    expect(await find('a1b2c3')).toBe(folder);
    expect(await resolveModelFolder('org/single', { cacheDir, revision: commit })).toBe(folder);
    expect(requests).toEqual([]);
    await snapshot('org/single', other, complete);
    await expect(find('a1b2')).rejects.toThrow(/several snapshots/);
    for (const bad of ['../x', 'a/../../b', '', '/x', '-x']) await expect(find(bad)).rejects.toThrow(ConfigError);
  });

  it('says what was looked for, where, and what to do', async () => {
    await expect(resolveModelFolder('org/single', { cacheDir, ...offline })).rejects.toThrow(
      /not in the cache.*org\/single.*main.*models--org--single.*localFilesOnly is set.*go online/,
    );
    const folder = await snapshot(
      'org/single',
      commit,
      {
        'config.json': text('{}'),
        'model.safetensors.index.json': index,
        'model-00001-of-00002.safetensors': complete['model.safetensors'],
      },
      'main',
    );
    await expect(resolveModelFolder('org/single', { cacheDir, ...offline })).rejects.toThrow(
      /only partly.*model-00002-of-00002.safetensors/,
    );
    await rm(join(cacheDir, 'models--org--single', 'blobs'), { recursive: true });
    await expect(resolveModelFolder('org/single', { cacheDir, ...offline })).rejects.toThrow(
      /only partly.*config.json/,
    );
    expect(folder).toContain(commit);
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    await expect(resolveModelFolder('org/other', { cacheDir })).rejects.toThrow(/HF_HUB_OFFLINE is set/);
    expect(requests).toEqual([]);
  });

  it('uses what is cached when the hub cannot be reached', async () => {
    const unreachable = () =>
      Promise.reject(new TypeError('fetch failed', { cause: new Error('getaddrinfo ENOTFOUND') }));
    await expect(resolveModelFolder('org/single', { cacheDir, fetch: unreachable })).rejects.toThrow(
      /not in the cache.*cannot be reached.*ENOTFOUND/,
    );
    const folder = await snapshot('org/single', commit, complete, 'main');
    expect(await resolveModelFolder('org/single', { cacheDir, fetch: unreachable })).toBe(folder);
  });
});

describe('download', () => {
  it('fetches what is needed into the cache layout, checked, and nothing twice', async () => {
    const progress: DownloadProgress[] = [];
    const folder = await resolveModelFolder('org/single', { cacheDir, onProgress: (p) => progress.push(p) });
    expect(folder).toBe(join(cacheDir, 'models--org--single', 'snapshots', commit));
    expect((await readdir(folder)).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
    expect(await readlink(join(folder, 'model.safetensors'))).toBe(
      join('..', '..', 'blobs', sha256(complete['model.safetensors'])),
    );
    expect((await readdir(join(cacheDir, 'models--org--single', 'blobs'))).sort()).toEqual(
      [sha1(text('{}')), sha256(complete['model.safetensors'])].sort(),
    );
    expect(await readFile(join(cacheDir, 'models--org--single', 'refs', 'main'), 'utf8')).toBe(commit);
    const last = progress[progress.length - 1];
    expect(last.bytes).toBe(last.totalBytes);
    expect([...(await openCheckpoint(folder)).tensors.keys()]).toEqual(['a']);
    requests = [];
    expect(await resolveModelFolder('org/single', { cacheDir, revision: 'v1.0' })).toBe(folder);
    expect(requests.every(({ url }) => url.startsWith('/api/'))).toBe(true);
    expect(await resolveModelFolder('org/single', { cacheDir, revision: 'v1.0', ...offline })).toBe(folder);
    expect(requests.every(({ authorization }) => authorization === undefined)).toBe(true);
  });

  it('follows an index to its shards', async () => {
    const folder = await resolveModelFolder('org/sharded', { cacheDir, revision: commit });
    expect([...(await openCheckpoint(folder)).tensors.keys()]).toEqual(['a', 'b']);
  });

  it('sends the token, and shows it in no error', async () => {
    vi.stubEnv('HF_HUB_DISABLE_IMPLICIT_TOKEN', undefined);
    vi.stubEnv('HF_TOKEN', token);
    await resolveModelFolder('org/single', { cacheDir });
    expect(requests.length).toBeGreaterThan(3);
    expect(requests.every(({ authorization }) => authorization === `Bearer ${token}`)).toBe(true);
    for (const id of ['org/gated', 'org/private', 'org/broken', 'org/none']) {
      const error = (await resolveModelFolder(id, { cacheDir, limits }).catch((e: unknown) => e)) as CheckpointError;
      expect(error).toBeInstanceOf(CheckpointError);
      expect(
        JSON.stringify([error.message, error.stack, error.fields, String(error.cause), (error.cause as Error).stack]),
      ).not.toContain('secret');
    }
    requests = [];
    await resolveModelFolder('org/sharded', { cacheDir, token: false });
    expect(requests.every(({ authorization }) => authorization === undefined)).toBe(true);
  });

  it.each([
    ['org/gated', CheckpointError, /gated, private or does not exist.*HF_TOKEN/],
    ['org/private', CheckpointError, /gated, private.*org\/private/],
    ['org/broken', CheckpointError, /reports an error.*500/],
    ['org/none', CheckpointError, /no such model.*org\/none.*spelling/],
    ['org/gguf', UnsupportedError, /no weights in safetensors or of PyTorch.*model\.gguf/],
    ['org/damaged', CheckpointError, /damaged.*model.safetensors.*checksum/],
    ['org/lost-shard', CheckpointError, /shards that the hub does not have/],
    ['org/escape', CheckpointError, /outside the repository/],
  ])('%s fails with advice and leaves no half file', async (id, type, message) => {
    const resolving = resolveModelFolder(id, { cacheDir, limits });
    await expect(resolving).rejects.toThrow(type);
    await expect(resolving).rejects.toThrow(message);
    const left = await readdir(cacheDir, { recursive: true });
    expect(
      left.filter((name) => name.includes('incomplete') || name.includes('evil') || name.includes('refs')),
    ).toEqual([]);
  });

  it('takes the files of PyTorch where there are no others, and none of a trainer', async () => {
    const folder = await resolveModelFolder('org/pickled', { cacheDir, limits });
    expect((await readdir(folder)).sort()).toEqual(['config.json', 'pytorch_model.bin']);
  });

  it('stops at an abort, and goes on from there', async () => {
    const stop = new AbortController();
    const reason = new Error('enough');
    const resolving = resolveModelFolder('org/sharded', {
      cacheDir,
      signal: stop.signal,
      onProgress: () => stop.abort(reason),
    });
    await expect(resolving).rejects.toBe(reason);
    expect((await readdir(cacheDir, { recursive: true })).filter((name) => /refs|lock$/.test(name))).toEqual([]);
    const folder = await resolveModelFolder('org/sharded', { cacheDir });
    expect([...(await openCheckpoint(folder)).tensors.keys()]).toEqual(['a', 'b']);
    expect((await readdir(cacheDir, { recursive: true })).filter((name) => name.includes('incomplete'))).toEqual([]);
  });
});

describe('environment', () => {
  it('follows the names and the order of Python', async () => {
    const home = hubEnvironment({}).cacheDir;
    expect(home.endsWith(join('.cache', 'huggingface', 'hub'))).toBe(true);
    expect(hubEnvironment({ XDG_CACHE_HOME: '/x' }).cacheDir).toBe(resolve('/x/huggingface/hub'));
    expect(hubEnvironment({ XDG_CACHE_HOME: '/x', HF_HOME: '/h' }).cacheDir).toBe(resolve('/h/hub'));
    expect(hubEnvironment({ HF_HOME: '/h', HF_HUB_CACHE: '/c' }).cacheDir).toBe(resolve('/c'));
    expect(hubEnvironment({ HF_HUB_OFFLINE: 'True' }).offline).toBe(true);
    expect(hubEnvironment({ HF_HUB_OFFLINE: '0' }).offline).toBe(false);
    expect(hubEnvironment({ HF_ENDPOINT: 'http://a/' })).toMatchObject({
      endpoint: 'http://a',
      metadataTimeoutMs: 10_000,
    });
    const folder = await temp.sub('token');
    await writeFile(join(folder, 'token'), `${token}\n`);
    expect(await hubToken({ HF_HOME: folder })).toBe(token);
    expect(await hubToken({ HF_HOME: folder, HF_TOKEN: 'hf_b' })).toBe('hf_b');
    expect(await hubToken({ HF_HOME: folder, HF_HUB_DISABLE_IMPLICIT_TOKEN: '1' })).toBeUndefined();
    expect(await hubToken({ HF_HOME: '/nowhere' })).toBeUndefined();
  });

  it('fills in ~, $NAME and ${NAME}, and leaves what is not set', () => {
    const cache = (env: Record<string, string>) => hubEnvironment({ DATA: '/data', X_1: 'a/b', ...env }).cacheDir;
    expect(cache({ HF_HOME: '$DATA/hf' })).toBe(resolve('/data/hf/hub'));
    expect(cache({ HF_HUB_CACHE: '${DATA}/$X_1/c' })).toBe(resolve('/data/a/b/c'));
    expect(cache({ HUGGINGFACE_HUB_CACHE: '~/$X_1' })).toBe(join(homedir(), 'a', 'b'));
    expect(cache({ XDG_CACHE_HOME: '$DATA' })).toBe(resolve('/data/huggingface/hub'));
    expect(cache({ HF_HUB_CACHE: '/x/$NOT_SET/${NOR_THIS}/$' })).toBe(resolve('/x/$NOT_SET/${NOR_THIS}/$'));
    expect(cache({ HF_HUB_CACHE: '/x/~/y' })).toBe(resolve('/x/~/y'));
  });

  it('sets timeouts, and an endpoint without password', async () => {
    expect(hubEnvironment({ HF_HUB_ETAG_TIMEOUT: '0.5', HF_HUB_DOWNLOAD_TIMEOUT: '60' })).toMatchObject({
      metadataTimeoutMs: 500,
      downloadTimeoutMs: 60_000,
    });
    for (const endpoint of ['https://me:secret@hub', 'hub.example', 'file:///x', 'https://hub/?token=secret']) {
      vi.stubEnv('HF_ENDPOINT', endpoint);
      await expect(resolveModelFolder('org/single', { cacheDir })).rejects.toThrow(/^(?!.*secret).*HF_ENDPOINT/);
    }
  });

  it('reads Retry-After as seconds or a date', () => {
    const now = Date.UTC(2026, 0, 1, 12);
    expect(retryAfter('2', now)).toBe(2000);
    expect(retryAfter('Thu, 01 Jan 2026 12:00:30 GMT', now)).toBe(30_000);
    expect(retryAfter('Thu, 01 Jan 2026 11:00:00 GMT', now)).toBe(0);
    for (const none of [null, '', 'soon', '-']) expect(retryAfter(none, now)).toBeUndefined();
  });
});
