// What fromPretrained fetches, by a hub that is only a function.
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { AutoConfig, AutoModelForCausalLM, AutoTokenizer, ConfigError } from './index.js';
import { temporaryFolders, unpackCheckpoint } from './testing.js';

const temporary = temporaryFolders();
const commit = 'c0ffee'.padEnd(40, '0');
let fetched: string[];
let cacheDir: string;
let hub: typeof fetch;

async function hubOf(folder: string): Promise<typeof fetch> {
  const files = new Map<string, Buffer>();
  for (const name of await readdir(folder)) files.set(name, await readFile(join(folder, name)));
  const list = [...files].map(([path, bytes]) => ({
    type: 'file',
    path,
    size: bytes.length,
    oid: createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex'),
  }));
  return (input) => {
    const { pathname } = new URL(String(input));
    if (pathname.includes('/revision/')) return Promise.resolve(Response.json({ sha: commit }));
    if (pathname.includes('/tree/')) return Promise.resolve(Response.json(list));
    const name = pathname.split('/').pop()!;
    fetched.push(name);
    return Promise.resolve(new Response(new Uint8Array(files.get(name)!)));
  };
}

beforeEach(async () => {
  for (const name of ['HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE']) vi.stubEnv(name, undefined);
  vi.stubEnv('HF_HUB_DISABLE_IMPLICIT_TOKEN', '1');
  fetched = [];
  cacheDir = await temporary('cache');
  hub = await hubOf(await unpackCheckpoint('llama', await temporary('llama')));
});
afterEach(() => vi.unstubAllEnvs());

it('a configuration, a tokenizer and a model of random weights fetch their files only', async () => {
  const options = { cacheDir, fetch: hub };
  expect((await AutoConfig.fromPretrained('org/llama', options)).modelType).toBe('llama');
  expect(fetched).toEqual(['config.json']);
  await AutoTokenizer.fromPretrained('org/llama', options);
  await (await AutoModelForCausalLM.fromPretrained('org/llama', { ...options, loadFormat: 'dummy' })).dispose();
  expect(fetched).toContain('tokenizer.json');
  expect(fetched.filter((name) => name.includes('safetensors'))).toEqual([]);
  await AutoTokenizer.fromPretrained('org/llama', { cacheDir, localFilesOnly: true });
});

it('a model reports its download, and says when it comes from the cache because the hub is away', async () => {
  const progress: string[] = [];
  const onDownload = ({ file }: { file: string }) => void progress.push(file);
  await (await AutoModelForCausalLM.fromPretrained('org/llama', { cacheDir, fetch: hub, onDownload })).dispose();
  expect(new Set(progress)).toContain('model.safetensors');
  const lines: string[] = [];
  const away = {
    cacheDir,
    fetch: () => Promise.resolve(new Response('', { status: 503 })),
    hubLimits: { maxRetries: 0 },
    onWarning: (line: string) => void lines.push(line),
  };
  const model = await AutoModelForCausalLM.fromPretrained('org/llama', away);
  expect(model.warnings).toEqual([expect.stringMatching(new RegExp(`${commit} is used.*503`))]);
  await model.dispose();
  await AutoTokenizer.fromPretrained('org/llama', away);
  await AutoConfig.fromPretrained('org/llama', away);
  expect(lines).toHaveLength(3);
});

it.each([
  [{ hubLimits: { maxRetry: 1 } }, /maxRetries/],
  [{ fetch: 5 }, /fetch must be a function/],
  [{ onDownload: true }, /onDownload is true; give a function/],
  [{ proxy: 'x' }, /proxy/],
])('options are checked: %j', async (options, message) => {
  const call = AutoTokenizer.fromPretrained('org/llama', { cacheDir, ...options } as never);
  await expect(call).rejects.toThrow(ConfigError);
  await expect(call).rejects.toThrow(message);
});
