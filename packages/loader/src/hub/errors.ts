import { CheckpointError, QError, type ErrorDetail } from '@q/config';
import { fileError } from '../safetensors/file.js';
import { isReadOnly } from './cache.js';
import { HubFailure } from './failure.js';

const op = 'hub';

export interface ErrorPlace {
  readonly id: string;
  readonly revision: string;
  readonly endpoint: string;
  /** The proxy in between, without its password. */
  readonly proxy?: string;
}

/** A text without secrets and control characters, should a server have sent the token back. */
const redacted = (text: string, token: string | undefined): string =>
  (token ? text.split(token).join('***') : text)
    .replace(/hf_[A-Za-z0-9]{8,}/g, '***')
    .replace(/\/\/[^/@\s]*@/g, '//***@')
    // Signed addresses of storage let anyone in.
    .replace(/(https?:\/\/[^\s?"')]+)\?[^\s"')]*/g, '$1?***')
    .replace(/\p{Cc}+/gu, ' ')
    .slice(0, 500);

const isFileSystem = (cause: unknown): cause is NodeJS.ErrnoException => cause instanceof Error && 'syscall' in cause;

/**
 * What a failure of the hub means for the caller. Tokens never appear in it. Errors that are neither of the hub nor of
 * the file system, such as those of the caller's own callbacks, stay what they are.
 */
export function hubError(cause: unknown, place: ErrorPlace, token: string | undefined): unknown {
  if (cause instanceof QError) return withoutToken(cause, place, token);
  if (cause instanceof HubFailure) return ofFailure(cause, place, token);
  if (!isFileSystem(cause)) return cause;
  if (!isReadOnly(cause)) return fileError(cause, cause.path ?? place.id, 'cannot write into the cache');
  return new CheckpointError(op, 'the cache cannot be written to', {
    id: place.id,
    file: cause.path,
    why: cause.message,
    fix: 'set cacheDir or HF_HUB_CACHE to a folder of yours, or download the model where it can be written',
    cause,
  });
}

/** File names and messages are the server's: it might put into them what it was sent. */
function withoutToken(error: QError, { id }: ErrorPlace, token: string | undefined): QError {
  const text = `${error.message} ${JSON.stringify(error.fields)}`;
  if (!token || !text.includes(token)) return error;
  return new CheckpointError(op, 'the hub sends the access token back', { id, fix: 'do not trust this hub' });
}

function ofFailure(failure: HubFailure, place: ErrorPlace, token: string | undefined): CheckpointError {
  const { status, kind, retryAfterMs } = failure;
  const said = redacted(failure.message, token);
  const detail = {
    ...place,
    ...(status !== undefined && { status }),
    ...(failure.elsewhere !== undefined && { answeredBy: failure.elsewhere }),
    ...(retryAfterMs !== undefined && { retryAfterSeconds: Math.ceil(retryAfterMs / 1000) }),
    cause: new Error(said),
  };
  if (kind === 'unreachable') {
    const fix = 'check the network, HF_ENDPOINT and the proxy (HTTPS_PROXY, NO_PROXY), or give the path of a folder';
    return new CheckpointError(op, 'the hub cannot be reached', { ...detail, why: said, fix });
  }
  if (kind === 'answer') {
    const fix = 'check HF_ENDPOINT, and whether a proxy or a log-in page answers instead of the hub';
    return new CheckpointError(op, 'the hub gives an answer that makes no sense', { ...detail, why: said, fix });
  }
  return ofStatus(status ?? 0, said, detail, token !== undefined);
}

function ofStatus(status: number, said: string, detail: ErrorDetail, hasToken: boolean): CheckpointError {
  const page = `${String(detail.endpoint)}/${String(detail.id)}`;
  if ((status === 401 || status === 403) && detail.answeredBy === undefined) {
    const fix = hasToken
      ? `open ${page} in a browser, accept its conditions, and check that the token may read it`
      : `set HF_TOKEN (or the token option), after accepting the conditions on ${page}; check the spelling of the id`;
    const what = hasToken ? 'the token may not read this model' : 'the model is gated, private or does not exist';
    return new CheckpointError(op, what, { ...detail, fix });
  }
  if (status === 404 && detail.answeredBy === undefined) {
    const fix = 'check the spelling of id and revision; a private model needs HF_TOKEN';
    return new CheckpointError(op, 'the hub has no such model, revision or file', { ...detail, fix });
  }
  if (status === 429)
    return new CheckpointError(op, 'the hub asks to slow down', { ...detail, fix: 'wait, or log in with HF_TOKEN' });
  return new CheckpointError(op, 'the hub reports an error', { ...detail, why: said, fix: 'try again later' });
}
