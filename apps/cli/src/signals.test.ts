import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { q } from './testing.js';

const codes = [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const;

it.each(codes)('%s while loading ends with %i', async (signal, code) => {
  const cache = await mkdtemp(join(tmpdir(), 'q-signals-'));
  let arrived = () => {};
  const asked = new Promise<void>((resolve) => (arrived = resolve));
  const server = createServer(() => arrived()); // a hub that never answers
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const env = {
    HF_ENDPOINT: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    HF_HUB_CACHE: cache,
    HF_HUB_OFFLINE: '0',
  };
  try {
    const finished = await q(['run', 'some/model', '-p', 'x'], {
      env,
      onStart: (child) => void asked.then(() => child.kill(signal)),
    });
    expect(finished).toEqual({ code, stdout: '', stderr: '' });
  } finally {
    server.closeAllConnections();
    server.close();
    await rm(cache, { recursive: true, force: true });
  }
});

it.each(codes)('%s while generating ends with %i', async (signal, code) => {
  const finished = await q(['run', '-p', 'const', '-n', '1900'], {
    onStart: (child) => child.stdout!.once('data', () => child.kill(signal)),
  });
  expect(finished).toMatchObject({ code, stderr: '' });
});

it('ends while it waits for a prompt', async () => {
  const { code } = await q(['run'], {
    input: 'open',
    onStart: (child) => {
      child.stdin!.write('half a prompt');
      setTimeout(() => child.kill('SIGTERM'), 3000);
    },
  });
  expect(code).toBe(143);
});
