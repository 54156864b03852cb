// A hub on this machine for the tests of this folder.
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileOf } from '../testing.js';

export const commit = 'a1b2c3d4e5'.repeat(4);
export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
export const gitSha1 = (bytes: Uint8Array): string =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');

/** A safetensors file of so many bytes of data, no two pages alike. */
export function weights(bytes: number, seed = 1): Uint8Array {
  const header = { a: { dtype: 'U8', shape: [bytes], data_offsets: [0, bytes] } };
  const file = fileOf(header, bytes);
  for (let i = file.length - bytes, state = seed; i < file.length; i++)
    file[i] = (state = (state * 1103515245 + 12345) & 0x7fffffff) >> 16;
  return file;
}

export type Files = Record<string, Uint8Array | string>;

export interface Seen {
  readonly host: string;
  readonly path: string;
  readonly authorization?: string;
  readonly range?: string;
}

/** Answers a request itself and returns true, or leaves it to the hub. */
export type Hook = (path: string, request: IncomingMessage, response: ServerResponse) => boolean | void;

export interface TestServer {
  readonly endpoint: string;
  readonly seen: Seen[];
  /** Bytes of bodies that went out. */
  hook: Hook;
  close(): Promise<void>;
}

/** A server whose every answer is the hook's, or else the fallback's; it notes what was asked. */
export async function serve(fallback: (path: string, request: IncomingMessage, response: ServerResponse) => void) {
  const seen: Seen[] = [];
  const server = createServer((request, response) => {
    const path = decodeURIComponent((request.url ?? '').split('?')[0]);
    const { authorization, range, host = '' } = request.headers;
    seen.push({ host, path, authorization, range });
    response.on('error', () => undefined);
    if (made.hook(path, request, response) !== true) fallback(path, request, response);
  });
  const made: TestServer = {
    endpoint: '',
    seen,
    hook: () => undefined,
    close: () => new Promise((closed) => (server.closeAllConnections(), server.close(() => closed()))),
  };
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return Object.assign(made, { endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server });
}

export const bytesOf = (content: Uint8Array | string): Uint8Array =>
  typeof content === 'string' ? new TextEncoder().encode(content) : content;

export const sendJson = (response: ServerResponse, value: unknown, status = 200, headers = {}): true => {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));
  return true;
};

/** Sends a file, or the part of it that is asked for. */
export function sendFile(request: IncomingMessage, response: ServerResponse, bytes: Uint8Array): true {
  const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const range = request.headers.range && { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` };
  response.writeHead(range ? 206 : 200, { 'content-length': bytes.length - from, ...range }).end(bytes.subarray(from));
  return true;
}

/** The entries of a list: weights are large files with a sha256, others have git's sha1. */
export const entriesOf = (files: Files) =>
  Object.entries(files).map(([path, content]) => {
    const bytes = bytesOf(content);
    const lfs = { oid: sha256(bytes), size: bytes.length, pointerSize: 130 };
    return {
      type: 'file',
      path,
      size: bytes.length,
      oid: gitSha1(bytes),
      ...(/\.safetensors$/.test(path) && { lfs }),
    };
  });

/** A hub with one repository, `org/model`. */
export async function fakeHub(files: Files) {
  return serve((path, request, response) => {
    if (path.startsWith('/api/models/org/model/revision/')) return sendJson(response, { _id: '1', sha: commit });
    const folder = /^\/api\/models\/org\/model\/tree\/[^/]+\/?(.*)$/.exec(path)?.[1];
    if (folder !== undefined) {
      const inside = entriesOf(files).filter((entry) => entry.path.split('/').slice(0, -1).join('/') === folder);
      const folders = [...new Set(Object.keys(files).filter((name) => name.includes('/')))].map((name) => ({
        type: 'directory',
        path: name.split('/')[0],
        size: 0,
        oid: '0',
      }));
      return sendJson(response, folder === '' ? [...inside, ...folders] : inside);
    }
    const name = /^\/org\/model\/resolve\/[^/]+\/(.+)$/.exec(path)?.[1];
    if (name === undefined || !(name in files)) return sendJson(response, { error: 'Entry not found' }, 404);
    return sendFile(request, response, bytesOf(files[name]));
  });
}
