import { lstat, mkdtemp, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { CheckpointError, UnsupportedError } from '@q/config';
import { temporary } from '../testing.js';
import { resolveModelFolder } from './resolve.js';
import { commit, entriesOf, weights } from './testing.js';

// Answers that are right but for a few places: the call ends, with a folder or a typed error, and writes inside the
// cache.
const temp = temporary();
const files = { 'config.json': '{}', 'tokenizer.json': '{}', 'model.safetensors': weights(100) };
const odd: unknown[] = [
  null,
  undefined,
  true,
  -1,
  0.5,
  2 ** 53,
  '',
  '..',
  '../../x',
  '/x.json',
  '__proto__',
  'constructor.json',
  'x'.repeat(5000),
  '\0',
  '\u202e.json',
  'con.json',
  [],
  {},
  [[]],
  { oid: 'a'.repeat(64) },
  { oid: {}, size: [] },
];

/** Numbers in [0, 1) from a seed (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    let x = (state += 0x6d2b79f5);
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

function hubOf(seed: number): typeof fetch {
  const next = random(seed);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(next() * from.length)];
  const broken = (value: unknown): unknown => {
    if (next() < 0.04) return pick(odd);
    if (Array.isArray(value)) return value.flatMap((item) => (next() < 0.03 ? [] : [broken(item)]));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, broken(item)]));
  };
  const headers = () => ({
    'content-type': pick(['application/json', 'text/html', '']),
    ...(next() < 0.1 && {
      link: pick(['<http://elsewhere/x>; rel="next"', '<x>; rel="next"', '<', '<http://>; rel="next"']),
    }),
    ...(next() < 0.05 && { location: pick(['', 'http://', 'ftp://x', '//y/z', 'javascript:0']) }),
    ...(next() < 0.05 && { 'retry-after': pick(['-1', 'soon', '0', '1e99']) }),
    ...(next() < 0.1 && { 'content-range': pick(['bytes */*', 'bytes 1-0/1', 'bytes 0-99/100']) }),
  });
  return (input) => {
    const path = new URL(String(input)).pathname;
    const status = next() < 0.08 ? pick([204, 206, 301, 304, 401, 404, 416, 418, 429, 500, 503]) : 200;
    const name = Object.keys(files).find((file) => path.endsWith(`/${file}`)) as keyof typeof files | undefined;
    let body: string | Uint8Array<ArrayBuffer> = JSON.stringify(
      broken(path.includes('/tree/') ? entriesOf(files) : { sha: commit }),
    );
    if (name) body = new Uint8Array(Buffer.from(files[name]).subarray(0, next() < 0.1 ? 1 : undefined));
    else if (next() < 0.03) body = '['.repeat(100_000);
    if (next() < 0.03) return Promise.reject(pick([new TypeError('fetch failed'), new Error('x'), 'text', undefined]));
    return Promise.resolve(new Response([204, 304].includes(status) ? null : body, { status, headers: headers() }));
  };
}

it('a hub that is wrong somewhere gives a folder or a typed error', async () => {
  await temp.ready;
  vi.stubEnv('HF_ENDPOINT', 'https://hub.test');
  vi.stubEnv('HF_HUB_OFFLINE', undefined);
  vi.stubEnv('TRANSFORMERS_OFFLINE', undefined);
  const limits = { backoffMs: 1, maxBackoffMs: 1, maxRetryAfterMs: 1, metadataTimeoutMs: 20_000 };
  const outer = await mkdtemp(join(temp.path, 'outer-'));
  let arrived = 0;
  for (let seed = 1; seed <= 150; seed++) {
    const cacheDir = join(outer, String(seed));
    const call = resolveModelFolder('org/model', { cacheDir, token: 'api_secret', fetch: hubOf(seed), limits });
    const result = await call.catch((error: unknown) => error);
    if (typeof result === 'string') arrived++;
    else
      expect([CheckpointError, UnsupportedError], `seed ${seed}: ${String(result)}`).toContain(
        (result as Error).constructor,
      );
    expect(String(result), `seed ${seed}`).not.toContain('api_secret');
  }
  vi.unstubAllEnvs();
  expect(arrived).toBeGreaterThan(20);
  expect(arrived).toBeLessThan(140);
  const names = await readdir(outer);
  expect(names.every((name) => /^\d+$/.test(name))).toBe(true);
  expect((await readdir(temp.path)).length).toBe(1);
  expect((await lstat(outer)).isDirectory()).toBe(true);
});
