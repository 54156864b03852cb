import { createServer, request as forward } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { CheckpointError, UnsupportedError } from '@q/config';
import { temporary } from '../testing.js';
import { hubEnvironment } from './env.js';
import { proxyFor } from './proxy.js';
import { resolveModelFolder } from './resolve.js';
import { fakeHub, weights, type TestServer } from './testing.js';

const temp = temporary();
const names = ['http_proxy', 'https_proxy', 'all_proxy', 'no_proxy'].flatMap((name) => [name, name.toUpperCase()]);
const limits = { backoffMs: 1, maxRetries: 1 };
let hub: TestServer;
let asked: { what: string; auth?: string }[];
let proxy: ReturnType<typeof createServer>;
let address: string;
let cacheDir: string;

beforeEach(async () => {
  await temp.ready;
  cacheDir = await mkdtemp(join(temp.path, 'cache-'));
  hub = await fakeHub({ 'config.json': '{}', 'model.safetensors': weights(100) });
  asked = [];
  // Sends what is for hub.invalid to the test's hub, as a company's proxy would.
  proxy = createServer((request, response) => {
    asked.push({ what: request.url ?? '', auth: request.headers['proxy-authorization'] });
    const { pathname, search } = new URL(request.url ?? '');
    forward(`${hub.endpoint}${pathname}${search}`, { headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 500, answer.headers);
      answer.pipe(response);
    }).end();
  });
  proxy.on('connect', (request, socket) => {
    asked.push({ what: `CONNECT ${request.url}` });
    socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
  });
  await new Promise<void>((listening) => proxy.listen(0, '127.0.0.1', listening));
  address = `127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  for (const name of [...names, 'HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE', 'HF_TOKEN']) vi.stubEnv(name, undefined);
  vi.stubEnv('HF_HUB_DISABLE_IMPLICIT_TOKEN', '1');
  vi.stubEnv('HF_ENDPOINT', 'http://hub.invalid');
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await hub.close();
  await new Promise((closed) => (proxy.closeAllConnections(), proxy.close(closed)));
});

describe('proxies of the environment', () => {
  it.each(['HTTP_PROXY', 'http_proxy', 'ALL_PROXY'])('downloads go through %s', async (name) => {
    vi.stubEnv(name, `http://me:p%40ss@${address}`);
    const folder = await resolveModelFolder('org/model', { cacheDir, token: 'api_1' });
    expect(folder).toContain('snapshots');
    expect(asked.length).toBeGreaterThan(3);
    const auth = `Basic ${Buffer.from('me:p@ss').toString('base64')}`;
    expect(asked.every((seen) => seen.what.startsWith('http://hub.invalid/') && seen.auth === auth)).toBe(true);
    expect(hub.seen.every(({ authorization }) => authorization === 'Bearer api_1')).toBe(true);
  });

  it('https goes through a tunnel; an error names the proxy without its password', async () => {
    vi.stubEnv('HF_ENDPOINT', 'https://hub.invalid');
    vi.stubEnv('HTTPS_PROXY', `me:secret@${address}`);
    const error = await resolveModelFolder('org/model', { cacheDir, limits }).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(CheckpointError);
    expect((error as Error).message).toContain(`proxy http://${address}`);
    expect(JSON.stringify([error, (error as Error).message, (error as Error).stack])).not.toContain('secret');
    expect(asked[0].what).toBe('CONNECT hub.invalid:443');
  });

  it('are left out for NO_PROXY and for a fetch of the caller', async () => {
    vi.stubEnv('HTTP_PROXY', address);
    vi.stubEnv('HF_ENDPOINT', hub.endpoint);
    vi.stubEnv('NO_PROXY', 'example.com, 127.0.0.0/8');
    await resolveModelFolder('org/model', { cacheDir });
    vi.stubEnv('NO_PROXY', undefined);
    await resolveModelFolder('org/model', { cacheDir, fetch });
    expect(asked).toEqual([]);
  });

  it('of another kind are refused where they would be used', async () => {
    vi.stubEnv('ALL_PROXY', 'socks5://me:secret@127.0.0.1:9');
    const call = resolveModelFolder('org/model', { cacheDir });
    await expect(call).rejects.toThrow(UnsupportedError);
    await expect(call).rejects.toThrow(/^(?!.*secret).*socks5:\/\/127.0.0.1:9.*NO_PROXY/);
  });
});

it.each([
  ['hub.corp', 'http://hub.corp/', true],
  ['HUB.corp', 'http://hub.corp/', true],
  ['corp', 'https://hub.corp/', true],
  ['.corp', 'https://hub.corp/', true],
  ['*.corp', 'https://hub.corp/', true],
  ['orp', 'https://hub.corp/', false],
  ['hub.corp:443', 'https://hub.corp/', true],
  ['hub.corp:8080', 'https://hub.corp/', false],
  ['a, b  hub.corp', 'https://hub.corp/', true],
  ['*', 'https://hub.corp/', true],
  ['', 'https://hub.corp/', false],
  ['10.0.0.0/8', 'https://10.1.2.3/', true],
  ['10.0.0.0/8', 'https://11.1.2.3/', false],
  ['10.0.0.0/99', 'https://10.1.2.3/', false],
  ['2.3', 'https://10.1.2.3/', false],
  ['[::1]:80', 'http://[::1]/', true],
  ['::1', 'http://[::1]/', true],
])('NO_PROXY %j for %s: %s', (except, url, direct) => {
  const { proxies } = hubEnvironment({ HTTPS_PROXY: 'proxy:3128', http_proxy: 'http://proxy:3128', NO_PROXY: except });
  expect(proxyFor(new URL(url), proxies)?.href).toBe(direct ? undefined : 'http://proxy:3128/');
});
