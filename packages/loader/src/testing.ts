// Helpers of this package's tests.
import { mkdtemp, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll } from 'vitest';

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));

/** A temporary folder that goes away after the test file. */
export function temporary(): { path: string; ready: Promise<void>; sub: (name: string) => Promise<string> } {
  const made = {
    path: '',
    ready: Promise.resolve(),
    sub: async (name: string) => (
      await made.ready,
      await mkdir(join(made.path, name), { recursive: true }),
      join(made.path, name)
    ),
  };
  made.ready = mkdtemp(join(tmpdir(), 'q-loader-')).then((path) => void (made.path = path));
  afterAll(() => rm(made.path, { recursive: true, force: true }));
  return made;
}

/** Unpacks a fixture into `folder` and returns the folder. */
export async function unpack(name: string, folder: string): Promise<string> {
  for (const file of await readdir(join(fixtures, name))) {
    const bytes = await readFile(join(fixtures, name, file));
    await writeFile(join(folder, file.replace(/\.gz$/, '')), file.endsWith('.gz') ? gunzipSync(bytes) : bytes);
  }
  return folder;
}

export const fixtureNames = ['llama-int8', 'llama-nf4', 'llama-nf4-nested-bf16', 'opt-fp4', 'llama-sharded'] as const;

/** A safetensors file with this header and so many zero bytes of data. */
export function fileOf(header: unknown, dataBytes: number): Uint8Array {
  const json = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + json.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true);
  file.set(json, 8);
  return file;
}
