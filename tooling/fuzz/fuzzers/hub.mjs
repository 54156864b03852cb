// A hub on this machine whose answers are wrong: statuses, headers, lists, bodies, connections.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { modelFolder } from '../../../packages/transformers/dist/index.js';
import { llamaFiles, writeFiles } from '../files.mjs';
import { jsonText, mutateBytes, mutateJson } from '../mutate.mjs';

const id = 'org/model';
const commit = 'a1b2c3d4e5'.repeat(4);
const token = 'hf_fuzzsecretfuzzsecret';
const hexOf = (algorithm, ...parts) =>
  parts.reduce((all, part) => all.update(part), createHash(algorithm)).digest('hex');
const files = llamaFiles();

const list = Object.entries(files).map(([path, bytes]) => ({
  type: 'file',
  path,
  size: bytes.length,
  oid: hexOf('sha1', `blob ${bytes.length}\0`, bytes),
  ...(path.endsWith('.safetensors') && { lfs: { oid: hexOf('sha256', bytes), size: bytes.length, pointerSize: 130 } }),
}));
const info = {
  _id: '1',
  id,
  sha: commit,
  lastModified: '2024-01-01T00:00:00.000Z',
  siblings: list.map(({ path }) => ({ rfilename: path })),
};

const statuses = [
  200, 201, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 408, 416, 418, 429, 500, 502, 503, 504, 599,
];
const headers = [
  ['Location', '/'],
  ['Location', 'OTHER/x'],
  ['Location', 'http://127.0.0.1:1/x'],
  ['Location', 'file:///etc/passwd'],
  ['Location', 'not a url'],
  ['Link', '<OTHER/next>; rel="next"'],
  ['Link', '<http://127.0.0.1:1/next>; rel="next"'],
  ['Link', '</api/models/org/model/tree/main>; rel="next"'],
  ['Link', '<>; rel="next"'],
  ['Retry-After', '1000000000'],
  ['Retry-After', '-1'],
  ['Retry-After', 'soon'],
  ['ETag', '""'],
  ['ETag', '"../../evil"'],
  ['ETag', `"${'f'.repeat(3000)}"`],
  ['X-Linked-ETag', '"../../../evil"'],
  ['X-Linked-Size', '-1'],
  ['X-Repo-Commit', '../../evil'],
  ['X-Error-Code', 'GatedRepo'],
  ['Content-Encoding', 'gzip'],
  ['Content-Encoding', 'br'],
  ['Content-Range', 'bytes 0-0/1'],
  ['Content-Range', 'nonsense'],
  ['Content-Type', 'text/html'],
  ['X-Xet-Hash', 'z'],
];
const acts = ['mute', 'reset', 'cut', 'endless', 'drip', 'short', 'long'];

/** What goes wrong: for each kind of request a change, from its n-th time on. */
function scenario(random) {
  const plan = random.chance(0.1) ? { patienceMs: random.int(1, 100) } : {};
  const count = random.pick([1, 1, 2, 3]);
  for (let i = 0; i < count; i++) {
    const kind = random.pick(['info', 'tree', 'file', 'file']);
    plan[kind] = { from: random.pick([0, 0, 1]), times: random.pick([1, 2, 1e9]), ...change(random, kind) };
  }
  return plan;
}

function change(random, kind) {
  const what = random.int(0, 4);
  if (what === 0) return { status: random.pick(statuses) };
  if (what === 1) return { header: random.pick(headers), ...(random.chance(0.3) && { status: random.pick(statuses) }) };
  if (what === 2) return { act: random.pick(acts) };
  if (kind === 'file') return { body: { base64: random.bytes(random.pick([0, 10, 5000])).toString('base64') } };
  const json = jsonText(mutateJson(random, kind === 'info' ? info : list));
  const bytes = random.chance(0.1) ? mutateBytes(random, Buffer.from(json)) : Buffer.from(json);
  return { body: { base64: bytes.subarray(0, 1 << 20).toString('base64') } };
}

const contentOf = (kind, name) => {
  if (kind === 'info') return Buffer.from(JSON.stringify(info));
  if (kind === 'tree') return Buffer.from(JSON.stringify(list));
  return files[name];
};

function answer(request, response, state) {
  const url = decodeURIComponent(request.url);
  const name = /\/resolve\/[^/]+\/(.+?)(\?|$)/.exec(url)?.[1];
  const kind = name === undefined ? (url.includes('/tree/') ? 'tree' : 'info') : 'file';
  const body = contentOf(kind, name);
  if (body === undefined) return response.writeHead(404).end();
  const seen = (state.seen[kind] = (state.seen[kind] ?? 0) + 1);
  const wrong = state.plan[kind];
  const on = wrong !== undefined && seen > wrong.from && seen <= wrong.from + wrong.times;
  const good = {
    'Content-Type': kind === 'file' ? 'application/octet-stream' : 'application/json',
    ...(kind === 'file' && { ETag: `"${list.find(({ path }) => path === name).oid}"`, 'X-Repo-Commit': commit }),
  };
  const [status, part, more] = rangeOf(request, body);
  if (!on) return response.writeHead(status, { ...good, ...more, 'Content-Length': part.length }).end(part);
  return wronged(response, part, { ...good, ...more }, { status, ...wrong }, state);
}

/** What a Range header asks for. */
function rangeOf({ headers: { range } }, body) {
  const [, first, last] = /bytes=(\d+)-(\d*)/.exec(range ?? '') ?? [];
  if (first === undefined) return [200, body, {}];
  if (Number(first) >= body.length) return [416, Buffer.alloc(0), { 'Content-Range': `bytes */${body.length}` }];
  const end = Math.min(last === '' ? Infinity : Number(last), body.length - 1);
  return [206, body.subarray(Number(first), end + 1), { 'Content-Range': `bytes ${first}-${end}/${body.length}` }];
}

function wronged(response, body, good, { status = 200, header, act, body: other }, state) {
  if (act === 'mute') return undefined;
  if (act === 'reset') return response.destroy();
  const content = other ? Buffer.from(other.base64, 'base64') : body;
  response.writeHead(status, {
    ...good,
    ...(header && { [header[0]]: header[1].replace('OTHER', state.other) }),
    ...(act === 'short' && { 'Content-Length': content.length }),
  });
  if (act === undefined) return response.end(content);
  const half = content.subarray(0, content.length >> 1);
  response.write(half);
  if (act === 'cut' || act === 'short') return response.destroy();
  if (act === 'long') return response.end(Buffer.concat([content, Buffer.alloc(1 << 20)]));
  const timer = setInterval(() => response.write(act === 'drip' ? ' ' : Buffer.alloc(1 << 16)), 5);
  state.timers.push(timer);
  response.on('close', () => clearInterval(timer));
  return undefined;
}

/** What is waited for is the same in milliseconds as in seconds. */
const hubLimits = {
  metadataTimeoutMs: 60,
  metadataTotalMs: 150,
  downloadTimeoutMs: 60,
  maxRetries: 2,
  backoffMs: 2,
  maxBackoffMs: 4,
  lockPollMs: 5,
};

/** Nothing may be written outside the cache, and no answer may bring the token into a file. */
function checkCache(folder) {
  const names = readdirSync(folder, { recursive: true }).map(String);
  const stray = readdirSync(folder).filter((name) => name !== 'cache' && name !== 'scenario.json');
  if (stray.length > 0) throw new Error(`written outside the cache: ${stray.join(', ')}`);
  for (const name of names.filter((path) => /\.(json|txt)$/.test(path) && path.startsWith('cache')))
    if (readFileSync(join(folder, name)).includes(token)) throw new Error(`the token is in ${name}`);
}

export default {
  deadlineMs: 8000,
  batch: 250,
  async setup(folder) {
    const state = { folder, plan: {}, seen: {}, timers: [] };
    const server = createServer((request, response) => {
      response.on('error', () => undefined);
      answer(request, response, state);
    });
    server.on('clientError', () => undefined);
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    // Another origin, which must never see the token.
    const stranger = createServer((request, response) => {
      if (JSON.stringify(request.headers).includes(token)) state.leaked = request.url;
      response.end('{}');
    });
    await new Promise((resolve) => stranger.listen(0, '127.0.0.1', resolve));
    state.other = `http://127.0.0.1:${stranger.address().port}`;
    process.env.HF_ENDPOINT = `http://127.0.0.1:${server.address().port}`;
    process.env.HF_HUB_OFFLINE = '0';
    return { folder, servers: [server, stranger], shared: state };
  },
  good: () => [{}],
  make: (random) => scenario(random),

  async run(plan, { folder, servers, shared }) {
    writeFiles(folder, { 'scenario.json': JSON.stringify(plan) });
    Object.assign(shared, { plan, seen: {}, timers: [], leaked: undefined });
    // A good hub may be slow; with a bad one the caller loses patience.
    const isGood = Object.keys(plan).length === 0;
    const signal = AbortSignal.timeout(isGood ? 20_000 : (plan.patienceMs ?? 800));
    const limits = isGood ? {} : hubLimits;
    const download = modelFolder(id, { cacheDir: join(folder, 'cache'), token, signal, hubLimits: limits });
    const [{ reason }] = await Promise.allSettled([download]);
    shared.timers.forEach(clearInterval);
    for (const server of servers) server.closeAllConnections();
    if (shared.leaked) throw new Error(`the token went to another host: ${shared.leaked}`);
    if (String(reason?.stack).includes(token)) throw new Error('the token is in an error');
    checkCache(folder);
    if (reason) throw reason;
  },

  close({ servers }) {
    for (const server of servers) {
      server.close();
      server.closeAllConnections();
    }
  },
};
