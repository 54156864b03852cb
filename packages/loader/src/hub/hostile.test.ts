import { mkdtemp, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { CheckpointError, ConfigError } from '@q/config';
import { temporary } from '../testing.js';
import type { HubLimits } from '../limits.js';
import { resolveModelFolder, type ResolveModelOptions } from './resolve.js';
import { commit, entriesOf, fakeHub, sendFile, sendJson, serve, sha256, weights, type TestServer } from './testing.js';

const temp = temporary();
const secret = 'x-mirror token!42';
const big = weights(300_000);
const files = { 'config.json': '{}', 'tokenizer.json': '{"model":{}}', 'model.safetensors': big };
/** Short, so that the tests are; long enough for a busy machine where something must not expire. */
const quick: Partial<HubLimits> = { backoffMs: 1, maxRetries: 2 };

let hub: TestServer;
let open: TestServer[];
let cacheDir: string;
const start = async <T extends TestServer>(server: Promise<T>): Promise<T> => {
  const made = await server;
  open.push(made);
  return made;
};
beforeEach(async () => {
  await temp.ready;
  cacheDir = await mkdtemp(join(temp.path, 'cache-'));
  open = [];
  hub = await start(fakeHub(files));
  for (const name of ['HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE', 'HF_TOKEN', 'HTTP_PROXY', 'http_proxy', 'ALL_PROXY'])
    vi.stubEnv(name, undefined);
  vi.stubEnv('HF_HUB_DISABLE_IMPLICIT_TOKEN', '1');
  vi.stubEnv('HF_ENDPOINT', hub.endpoint);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await Promise.all(open.map((server) => server.close()));
});

const resolve = (options: ResolveModelOptions = {}) =>
  resolveModelFolder('org/model', { cacheDir, token: secret, ...options, limits: { ...quick, ...options.limits } });
const failure = async (options: ResolveModelOptions = {}): Promise<CheckpointError> => {
  const error = await resolve(options).then(
    () => new Error('it resolved'),
    (caught: unknown) => caught as Error,
  );
  const text = [error.message, error.stack, JSON.stringify({ ...error }), String((error.cause as Error)?.stack)];
  expect(text.join()).not.toContain('mirror token');
  expect(error).toBeInstanceOf(CheckpointError);
  return error as CheckpointError;
};
const blobs = join('models--org--model', 'blobs');
const isWeights = (path: string) => path.endsWith('/model.safetensors');
const weightRequests = () => hub.seen.filter(({ path }) => isWeights(path));
const partialOfWeights = () => join(cacheDir, blobs, `${sha256(big)}.q.incomplete`);
const left = async () =>
  (await readdir(cacheDir, { recursive: true })).filter((name) => /incomplete|\.lock$/.test(name));
const arrived = async (folder: string) => {
  expect(Buffer.compare(await readFile(join(folder, 'model.safetensors')), big)).toBe(0);
  expect(await left()).toEqual([]);
};

describe('the access token', () => {
  it('goes to the endpoint in any form, and to no other host or port that a redirect names', async () => {
    const storage = await start(serve((_, request, response) => sendFile(request, response, big)));
    hub.hook = (path, _, response) => {
      if (!isWeights(path)) return false;
      response.writeHead(302, { location: `${storage.endpoint}/blob?signature=1` }).end();
      return true;
    };
    await arrived(await resolve());
    expect(hub.seen.every(({ authorization }) => authorization === `Bearer ${secret}`)).toBe(true);
    expect(storage.seen).toHaveLength(1);
    expect(storage.seen[0].authorization).toBeUndefined();
  });

  it('asks for a new address when that of the storage has run out, and names the storage that refuses', async () => {
    let refusals = 1;
    const storage = await start(
      serve((_, request, response) => {
        if (refusals-- > 0) return response.writeHead(403).end('<Error>Request has expired</Error>');
        return sendFile(request, response, big);
      }),
    );
    hub.hook = (path, _, response) =>
      isWeights(path) && (response.writeHead(302, { location: `${storage.endpoint}/blob?sig=1` }).end(), true);
    await arrived(await resolve());
    cacheDir = await mkdtemp(join(temp.path, 'cache-'));
    refusals = Infinity;
    const { host } = new URL(storage.endpoint);
    expect((await failure()).message).toMatch(new RegExp(`reports an error.*403, answeredBy ${host}`));
  });

  it('counts another name of the same machine as another host, and stays away once a redirect left', async () => {
    const { port, host } = new URL(hub.endpoint);
    const back = `${hub.endpoint}/back/model.safetensors`;
    hub.hook = (path, request, response) => {
      if (!isWeights(path)) return false;
      if (path.startsWith('/back')) return sendFile(request, response, big);
      response.writeHead(307, { location: `http://localhost:${port}${path}` }).end();
      return true;
    };
    const sent: [string, string | null][] = [];
    // The name localhost may mean anything on this machine: it is answered here.
    const send: typeof fetch = (url, init) => {
      const asked = new URL(String(url)).host;
      sent.push([asked, new Headers(init?.headers).get('authorization')]);
      if (asked === host) return fetch(url, init);
      return Promise.resolve(new Response(null, { status: 307, headers: { location: back } }));
    };
    await arrived(await resolve({ fetch: send }));
    expect(sent.slice(-3)).toEqual([
      [host, `Bearer ${secret}`],
      [`localhost:${port}`, null],
      [host, null],
    ]);
  });

  it('does not follow the next page of a list to another host', async () => {
    const { 'model.safetensors': _, ...small } = files;
    const other = await start(serve((__, ___, response) => sendJson(response, entriesOf(files).slice(2))));
    hub.hook = (path, __, response) =>
      path.includes('/tree/') &&
      sendJson(response, entriesOf(small), 200, { link: `<${other.endpoint}/page2>; rel="next"` });
    await arrived(await resolve());
    expect(other.seen.map(({ authorization }) => authorization)).toEqual([undefined]);
  });

  it('does not follow a redirect from https to http', async () => {
    vi.stubEnv('HF_ENDPOINT', 'https://hub.example');
    const asked: string[] = [];
    const error = await failure({
      fetch: (url) => {
        asked.push(String(url));
        const headers = { location: 'http://hub.example/api' };
        return Promise.resolve(new Response(null, { status: 301, headers }));
      },
    });
    expect(error.message).toMatch(/makes no sense.*from https to http/);
    expect(asked).toHaveLength(1);
  });

  it('is in no error, though the hub may say it aloud', async () => {
    hub.hook = (_, request, response) =>
      sendJson(response, { error: `you said ${request.headers.authorization}\u001b[31m` }, 400);
    const error = await failure();
    expect(error.message).toMatch(/400.*you said Bearer \*\*\*/);
    // eslint-disable-next-line no-control-regex
    expect(error.message).not.toMatch(/\x1b/);
    hub.hook = (path, _, response) =>
      path.includes('/tree/') && sendJson(response, [{ type: 'file', path: `../${secret}`, size: 1, oid: '0' }]);
    expect((await failure()).message).toMatch(/sends the access token back/);
  });

  it.each(['a\r\nX-Evil: 1', 'a\0b', 'snow ☃', '', ' \n '])('cannot be %j', async (token) => {
    await expect(resolve({ token })).rejects.toThrow(ConfigError);
    await expect(resolve({ token })).rejects.toThrow(/cannot be sent/);
    expect(hub.seen).toEqual([]);
  });
});

describe('a hub in trouble', () => {
  it('is asked again after 429 with Retry-After, 503 and a reset', async () => {
    const troubles = [
      (response: ServerResponse) => response.writeHead(429, { 'retry-after': '0' }).end(),
      (response: ServerResponse) => response.socket?.resetAndDestroy(),
    ];
    hub.hook = (path, _, response) => {
      if (path.includes('/api/') && troubles.length > 0) return (troubles.shift()!(response), true);
      if (weightRequests().length === 1 && isWeights(path)) return (response.writeHead(503).end('no'), true);
    };
    await arrived(await resolve());
    expect(hub.seen.length).toBe(2 + 3 + 1 + 2);
  });

  it('is not waited for longer than the limits say', async () => {
    hub.hook = (_, __, response) => (response.writeHead(429, { 'retry-after': '3600' }).end(), true);
    expect((await failure()).message).toMatch(/slow down.*retryAfterSeconds 3600/);
    expect(hub.seen).toHaveLength(1);
    hub.hook = (_, __, response) => (response.writeHead(502).end('<html>'), true);
    expect((await failure()).message).toMatch(/reports an error.*502/);
    expect(hub.seen).toHaveLength(1 + 3);
  });

  it('is not waited for after an abort', async () => {
    hub.hook = (_, __, response) => (response.writeHead(503, { 'retry-after': '50' }).end(), true);
    const reason = new Error('enough');
    const stop = new AbortController();
    setTimeout(() => stop.abort(reason), 50);
    await expect(resolve({ signal: stop.signal })).rejects.toBe(reason);
  });

  it('that goes silent is given up: before the headers, in a list, in a file', async () => {
    // Each time only what is to expire is short: the machine may be busy.
    const metadata = { metadataTimeoutMs: 60 };
    hub.hook = () => true;
    expect((await failure({ limits: metadata })).message).toMatch(/cannot be reached.*nothing came for 0.06 s/);
    hub.hook = (path, _, response) => path.includes('/tree/') && (response.write('['), true);
    expect((await failure({ revision: commit, limits: metadata })).message).toMatch(/nothing came for/);
    hub.hook = (path, _, response) => isWeights(path) && (response.writeHead(404).end(), true);
    await failure();
    hub.seen.length = 0;
    hub.hook = (path, _, response) => {
      if (!isWeights(path)) return false;
      response.writeHead(200, { 'content-length': big.length }).write(big.subarray(0, 5000));
      return true;
    };
    const download = { downloadTimeoutMs: 400, maxRetries: 1 };
    expect((await failure({ limits: download })).message).toMatch(/nothing came for/);
    expect(weightRequests()).toHaveLength(2);
    expect((await stat(partialOfWeights())).size).toBe(5000);
  });

  it('cannot hold a caller with a byte now and then, nor a fetch that knows no signal', async () => {
    let ticks: NodeJS.Timeout | undefined;
    hub.hook = (_, __, response) => {
      ticks = setInterval(() => response.write(' '), 10);
      return true;
    };
    expect((await failure({ limits: { metadataTimeoutMs: 80 } })).message).toMatch(/nothing came for/);
    const total = { metadataTotalMs: 80, minProgressBytes: 1 };
    expect((await failure({ limits: total })).message).toMatch(/not done after/);
    clearInterval(ticks);
    const deaf = () => new Promise<Response>(() => undefined);
    expect((await failure({ fetch: deaf, limits: { metadataTimeoutMs: 30 } })).message).toMatch(/nothing came/);
  });
});

describe('odd answers', () => {
  it.each([
    ['204 to a revision', '/revision/', 204, '', /makes no sense.*204/],
    ['204 to a list', '/tree/', 204, '', /makes no sense.*204/],
    ['204 to a file', '/config.json', 204, '', /makes no sense.*204/],
    ['206 to a list', '/tree/', 206, '[]', /makes no sense.*206/],
    ['206 to a file without range', '/config.json', 206, '{}', /makes no sense.*206/],
    ['304', '/revision/', 304, '', /makes no sense.*304/],
    ['a web page', '/revision/', 200, '<html>log in</html>', /makes no sense.*not what a hub sends/],
    ['null', '/revision/', 200, 'null', /makes no sense/],
    ['no commit', '/revision/', 200, '{"sha":"main"}', /no commit/],
    ['no list', '/tree/', 200, '{}', /makes no sense/],
    ['a list of nothing', '/tree/', 200, '[null]', /makes no sense/],
    ['a file without name', '/tree/', 200, '[{"type":"file"}]', /makes no sense.*without a name/],
    ['a redirect to nowhere', '/tree/', 302, '', /makes no sense.*no address/],
  ])('%s', async (_, part, status, body, message) => {
    hub.hook = (path, __, response) => path.includes(part) && (response.writeHead(status).end(body), true);
    expect((await failure()).message).toMatch(message);
  });

  const listing = (changes: Record<string, unknown>) => {
    const entries = entriesOf(files).map((entry) => (entry.path === 'config.json' ? { ...entry, ...changes } : entry));
    hub.hook = (path, _, response) => path.includes('/tree/') && sendJson(response, entries);
  };
  it.each([
    [{ oid: undefined }, /no checksum/],
    [{ oid: 'abc' }, /no checksum/],
    [{ oid: '../../../evil' }, /no checksum/],
    [{ oid: 'A'.repeat(40) }, /no checksum/],
    [{ lfs: { oid: 'f'.repeat(40), size: 2 } }, /no checksum/],
    [{ size: -1 }, /without a size/],
    [{ size: 1e300 }, /without a size/],
    [{ size: '2' }, /without a size/],
    [{ size: 2 ** 40 }, /absurdly long.*maxSmallFileBytes/],
    [{ size: 1 }, /sends more of a file than it lists/],
    [{ path: '../config.json' }, /outside the repository/],
    [{ path: '/etc/config.json' }, /outside the repository/],
    [{ path: 'a\\..\\..\\config.json' }, /outside the repository/],
    [{ path: 'C:/config.json' }, /outside the repository/],
    [{ path: 'config\0.json' }, /outside the repository/],
    [{ path: 'nul.json' }, /cannot be stored/],
    [{ path: 'ab:c.json' }, /cannot be stored/],
    [{ path: `${'x'.repeat(300)}.json` }, /cannot be stored/],
  ])('a list with %j', async (changes, message) => {
    listing(changes);
    expect((await failure()).message).toMatch(message);
    expect(await left()).toEqual([]);
    expect(await readdir(cacheDir)).not.toContain('evil');
  });

  it('a list may name what is not wanted as it likes', async () => {
    listing({ path: 'notes: a?.md' });
    await arrived(await resolve());
  });
});

describe('too much', () => {
  it('of a file: stops behind the listed size', async () => {
    let sent = 0;
    hub.hook = (path, _, response) => {
      if (!isWeights(path)) return false;
      const more = () => {
        while (!response.destroyed && sent < 1e9 && response.write(big)) sent += big.length;
      };
      response.on('drain', more);
      more();
      return true;
    };
    expect((await failure()).message).toMatch(/sends more of a file than it lists.*model.safetensors/);
    expect(sent).toBeLessThan(50e6);
    expect(await left()).toEqual([]);
  });

  it('behind compression: counts what comes out', async () => {
    const bomb = gzipSync(Buffer.alloc(40e6, 0x20));
    const send = (part: string) => {
      hub.hook = (path, _, response) => {
        if (!path.includes(part)) return false;
        response.writeHead(200, { 'content-encoding': 'gzip' }).end(bomb);
        return true;
      };
    };
    send('/revision/');
    expect((await failure({ limits: { maxMetadataBytes: 1e6 } })).message).toMatch(/longer than 1000000 bytes/);
    send('/config.json');
    expect((await failure()).message).toMatch(/sends more of a file than it lists/);
  });

  it('of encodings: the process lives on when such an answer breaks off', async () => {
    for (const part of ['/revision/', '/model.safetensors']) {
      hub.hook = (path, _, response) => {
        if (!path.includes(part)) return false;
        const encodings = Array(6).fill('gzip').join();
        response.writeHead(200, { 'content-encoding': encodings, 'content-length': 100_000 }).write('abc');
        setTimeout(() => response.destroy(), 20);
        return true;
      };
      expect((await failure()).message).toMatch(/cannot be reached/);
      await new Promise((later) => setTimeout(later, 50));
    }
  });

  it('of a list, of pages, of redirects, of files, of an error', async () => {
    const page = (path: string) => ({ link: `<${hub.endpoint}${path}?cursor=again>; rel="next"` });
    hub.hook = (path, _, response) => path.includes('/tree/') && sendJson(response, [], 200, page(path));
    expect((await failure({ limits: { maxPages: 5 } })).message).toMatch(/more than 5 pages/);
    hub.hook = (path, _, response) =>
      path.includes('/tree/') && sendJson(response, entriesOf(files), 200, { ...page(path), 'x-pad': 'x' });
    expect((await failure({ limits: { maxMetadataBytes: 5000 } })).message).toMatch(/longer than/);
    hub.hook = (path, _, response) => (response.writeHead(302, { location: path }).end(), true);
    expect((await failure({ limits: { maxRedirects: 3 } })).message).toMatch(/more than 3 redirects/);
    hub.hook = () => undefined;
    expect((await failure({ limits: { maxFiles: 2 } })).message).toMatch(/too many files.*maxFiles/);
    hub.hook = (_, __, response) => sendJson(response, { error: 'no '.repeat(1e6) }, 400);
    expect((await failure()).message.length).toBeLessThan(1000);
  });

  it.each([{ maxRetries: -1 }, { backoffMs: NaN }, { maxPages: '5' }, { maxFiles: 1.5 }, { maxPage: 5 }])(
    'cannot be allowed by %j',
    async (limits) => {
      await expect(resolve({ limits: limits as never })).rejects.toThrow(ConfigError);
    },
  );
});

describe('a download that breaks off', () => {
  const cutAt = (bytes: number, times: number) => {
    hub.hook = (path, _, response) => {
      if (!isWeights(path) || weightRequests().length > times) return false;
      response.writeHead(200, { 'content-length': big.length });
      response.write(big.subarray(0, bytes), () => response.socket?.resetAndDestroy());
      return true;
    };
  };

  it('goes on from there in the same call', async () => {
    cutAt(100_000, 1);
    await arrived(await resolve());
    const [first, second] = weightRequests();
    expect(first.range).toBeUndefined();
    const from = Number(/^bytes=(\d+)-$/.exec(second.range ?? '')?.[1]);
    expect(from).toBeGreaterThan(0);
    expect(from).toBeLessThanOrEqual(100_000);
  });

  it('goes on from there in the next call, also where the first bytes alone came', async () => {
    cutAt(60_000, 1);
    await failure({ limits: { maxRetries: 0, minProgressBytes: 1e6 } });
    const { size } = await stat(partialOfWeights());
    expect(size).toBeGreaterThan(0);
    hub.hook = () => undefined;
    hub.seen.length = 0;
    await arrived(await resolve());
    expect(weightRequests().map(({ range }) => range)).toEqual([`bytes=${size}-`]);
  });

  it('ends with an error when every try ends early', async () => {
    hub.hook = (path, request, response) =>
      isWeights(path) && (request.headers.range ? response.socket?.destroy() : response.end('short'), true);
    expect((await failure()).message).toMatch(/cannot be reached/);
    expect(weightRequests()).toHaveLength(3);
  });

  const before = async (bytes: Uint8Array) => {
    await failure({ limits: { maxFiles: 1 } });
    hub.hook = (path, _, response) => isWeights(path) && (response.writeHead(404).end(), true);
    await failure();
    await writeFile(partialOfWeights(), bytes);
    hub.hook = () => undefined;
    hub.seen.length = 0;
  };

  it('is begun again where the server knows no ranges, or sends another part', async () => {
    await before(big.subarray(0, 1000));
    hub.hook = (path, request, response) =>
      isWeights(path) && sendFile({ ...request, headers: {} } as never, response, big);
    await arrived(await resolve());
    expect(weightRequests()).toHaveLength(1);
    for (const range of ['bytes 0-9/10', 'bytes 999-300000/300000', 'items', '']) {
      cacheDir = await mkdtemp(join(temp.path, 'cache-'));
      await before(big.subarray(0, 1000));
      hub.hook = (path, request, response) => {
        if (!isWeights(path) || !request.headers.range) return false;
        response.writeHead(206, range ? { 'content-range': range } : {}).end(big.subarray(1000));
        return true;
      };
      await arrived(await resolve());
      expect(weightRequests().map((seen) => seen.range)).toEqual(['bytes=1000-', undefined]);
    }
  });

  it('is begun again when the rest is refused, too long, or not of this file', async () => {
    await before(big.subarray(0, 1000));
    hub.hook = (path, request, response) =>
      isWeights(path) && request.headers.range ? (response.writeHead(416).end(), true) : false;
    await arrived(await resolve());
    cacheDir = await mkdtemp(join(temp.path, 'cache-'));
    await before(Buffer.concat([big, big]));
    await arrived(await resolve());
    cacheDir = await mkdtemp(join(temp.path, 'cache-'));
    await before(new Uint8Array(5000).fill(7));
    await arrived(await resolve());
    expect(weightRequests().map((seen) => seen.range)).toEqual(['bytes=5000-', undefined]);
  });

  it('is not fetched at all when all of it had come', async () => {
    await before(big);
    await arrived(await resolve());
    expect(weightRequests()).toEqual([]);
  });

  it('with another checksum is refused, and nothing of it stays', async () => {
    const other = weights(300_000, 2);
    hub.hook = (path, request, response) => isWeights(path) && sendFile(request, response, other);
    expect((await failure()).message).toMatch(/damaged.*checksum/);
    expect(await left()).toEqual([]);
    expect(await readdir(join(cacheDir, blobs))).not.toContain(sha256(big));
  });
});

describe('a cache', () => {
  it('is not believed where a file has another size than listed', async () => {
    const folder = await resolve();
    await truncate(join(folder, 'model.safetensors'), 1000);
    await writeFile(join(folder, 'config.json'), '{ "longer": 1 }');
    hub.seen.length = 0;
    await arrived(await resolve());
    expect(await readFile(join(folder, 'config.json'), 'utf8')).toBe('{}');
    expect(hub.seen.filter(({ path }) => path.includes(`/resolve/${commit}/`))).toHaveLength(2);
  });

  it('is freed of what downloads left that nobody went on with', async () => {
    await resolve();
    const stale = join(cacheDir, blobs, `${'0'.repeat(64)}.q.incomplete`);
    await writeFile(stale, 'x');
    await resolve();
    expect(await left()).toHaveLength(1);
    await new Promise((later) => setTimeout(later, 20));
    await resolve({ limits: { stalePartialMs: 1 } });
    expect(await left()).toEqual([]);
  });
});
