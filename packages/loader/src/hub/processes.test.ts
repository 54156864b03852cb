import { spawn, spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { temporary } from '../testing.js';
import { withLock } from './lock.js';
import { resolveModelFolder } from './resolve.js';
import { fakeHub, sendFile, sha256, weights, type TestServer } from './testing.js';

const temp = temporary();
const big = weights(2_000_000);
const tsx = createRequire(import.meta.url).resolve('tsx');
let hub: TestServer;
let cacheDir: string;
let config: string;

beforeEach(async () => {
  await temp.ready;
  cacheDir = await mkdtemp(join(temp.path, 'cache-'));
  hub = await fakeHub({ 'config.json': '{}', 'tokenizer.json': '{}', 'model.safetensors': big });
  // The sources of the packages below, not their last build.
  config = join(temp.path, 'tsconfig.json');
  const source = (name: string) => [fileURLToPath(new URL(`../../../${name}/src/index.ts`, import.meta.url))];
  const paths = { '@q/config': source('config'), '@q/tensor': source('tensor') };
  await writeFile(config, JSON.stringify({ compilerOptions: { paths, module: 'nodenext', target: 'es2022' } }));
});
afterEach(() => hub.close());

/** Another process that resolves the model; its exit code, and what it printed. */
function another(): { process: ReturnType<typeof spawn>; done: Promise<{ code: number | null; output: string }> } {
  const module = new URL('./resolve.ts', import.meta.url).href;
  const script = `import(${JSON.stringify(module)}).then(async ({ resolveModelFolder }) =>
    console.log(await resolveModelFolder('org/model', { cacheDir: process.env.CACHE })))`;
  const { PATH, HOME } = process.env;
  const child = spawn(process.execPath, ['--import', tsx, '-e', script], {
    env: {
      PATH,
      HOME,
      CACHE: cacheDir,
      HF_ENDPOINT: hub.endpoint,
      TSX_TSCONFIG_PATH: config,
      HF_HUB_DISABLE_IMPLICIT_TOKEN: '1',
    },
  });
  let output = '';
  child.stdout.on('data', (data) => (output += data));
  child.stderr.on('data', (data) => (output += data));
  return { process: child, done: new Promise((done) => child.on('close', (code) => done({ code, output }))) };
}
const weightRequests = () => hub.seen.filter(({ path }) => path.endsWith('/model.safetensors'));
const left = async () =>
  (await readdir(cacheDir, { recursive: true })).filter((name) => /incomplete|\.lock$/.test(name));

it('two processes share one download, and one goes on after the other was killed', async () => {
  let [sendRest, halfSent] = [() => undefined as void, () => undefined as void];
  const half = new Promise<void>((resolve) => (halfSent = resolve));
  hub.hook = (path, request, response) => {
    if (!path.endsWith('/model.safetensors') || request.headers.range) return false;
    response.writeHead(200, { 'content-length': big.length }).write(big.subarray(0, 1_000_000), () => halfSent());
    sendRest = () => void response.end(big.subarray(1_000_000));
    return true;
  };
  const first = another();
  await half;
  const second = another();
  const partial = join(cacheDir, 'models--org--model', 'blobs', `${sha256(big)}.q.incomplete`);
  // Until the second one has all but the weights, which the first one is fetching.
  while (hub.seen.filter(({ path }) => path.includes('/tree/')).length < 2 || (await stat(partial)).size < 1_000_000)
    await new Promise((later) => setTimeout(later, 20));
  expect(weightRequests()).toHaveLength(1);
  first.process.kill('SIGKILL');
  expect((await first.done).code).toBe(null);
  const { code, output } = await second.done;
  expect(code, output).toBe(0);
  expect(weightRequests().map(({ range }) => range)).toEqual([undefined, 'bytes=1000000-']);
  expect(Buffer.compare(await readFile(join(output.trim(), 'model.safetensors')), big)).toBe(0);
  expect(await left()).toEqual([]);
  sendRest();
});

const quick = { staleMs: 200, pollMs: 5 };

it('a lock is held by one at a time, and given back when work fails', async () => {
  const path = join(cacheDir, 'locks', 'a.lock');
  let [running, most] = [0, 0];
  const work = async () => {
    most = Math.max(most, ++running);
    await new Promise((later) => setTimeout(later, 10));
    running--;
  };
  await Promise.all(Array.from({ length: 6 }, () => withLock(path, quick, work)));
  expect(most).toBe(1);
  await expect(withLock(path, quick, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
  expect(await left()).toEqual([]);
});

it('a lock of a process that is gone is taken at once; one that nobody touches, after a while', async () => {
  const path = join(cacheDir, 'locks', 'a.lock');
  await mkdir(join(cacheDir, 'locks'));
  const { pid } = spawnSync(process.execPath, ['-e', '']);
  await writeFile(path, JSON.stringify({ pid, host: hostname(), nonce: 'x' }));
  await withLock(path, { staleMs: 60_000, pollMs: 5 }, () => Promise.resolve());
  for (const content of [
    '',
    '{"pid":1,"host":"elsewhere","nonce":"y"}',
    `{"pid":${process.pid},"host":"${hostname()}"}`,
  ]) {
    await writeFile(path, content);
    await withLock(path, quick, () => Promise.resolve());
  }
  expect(await left()).toEqual([]);
});

it('waiting for a lock ends with the signal', async () => {
  const path = join(cacheDir, 'locks', 'a.lock');
  const stop = new AbortController();
  const reason = new Error('enough');
  await withLock(path, quick, async () => {
    const waiting = withLock(path, { ...quick, signal: stop.signal }, () => Promise.resolve());
    stop.abort(reason);
    await expect(waiting).rejects.toBe(reason);
  });
});

it('a download under way elsewhere is waited for and reported', async () => {
  vi.stubEnv('HF_ENDPOINT', hub.endpoint);
  let release = () => undefined as void;
  const hold = new Promise<void>((resolve) => (release = resolve));
  hub.hook = (path, request, response) => {
    if (!path.endsWith('/model.safetensors')) return false;
    void hold.then(() => sendFile(request, response, big));
    return true;
  };
  const seen: number[] = [];
  const calls = [1, 2, 3].map(() =>
    resolveModelFolder('org/model', { cacheDir, token: false, onProgress: ({ bytes }) => seen.push(bytes) }),
  );
  while (weightRequests().length === 0) await new Promise((later) => setTimeout(later, 5));
  release();
  expect(new Set(await Promise.all(calls)).size).toBe(1);
  expect(weightRequests()).toHaveLength(1);
  vi.unstubAllEnvs();
});
