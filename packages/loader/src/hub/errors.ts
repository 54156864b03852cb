import { CheckpointError, QError } from '@q/config';
import { fileError } from '../safetensors/file.js';

const op = 'hub';

/** A cause without its request, and without the token should a server have echoed it. */
const redacted = (cause: unknown, token: string | undefined): Error => {
  const text =
    cause instanceof Error
      ? `${cause.message}${cause.cause instanceof Error ? `: ${cause.cause.message}` : ''}`
      : String(cause);
  const clean = token ? text.split(token).join('***') : text;
  return new Error(clean.replace(/hf_[A-Za-z0-9]{8,}/g, '***').slice(0, 500));
};

const statusOf = (cause: unknown): number | undefined => {
  const status = (cause as { statusCode?: unknown } | null)?.statusCode;
  return typeof status === 'number' ? status : undefined;
};

const isFileSystem = (cause: unknown): cause is NodeJS.ErrnoException =>
  cause instanceof Error && 'syscall' in cause && 'path' in cause;

/** Whether an error means that the hub could not be reached at all (as opposed to an answer it gave). */
export const isUnreachable = (cause: unknown): boolean =>
  !(cause instanceof QError) &&
  !isFileSystem(cause) &&
  statusOf(cause) === undefined &&
  !(cause instanceof SyntaxError);

/** What a failure of the hub means for the caller. Tokens never appear in it. */
export function hubError(
  cause: unknown,
  request: { id: string; revision: string; endpoint: string; file?: string; token: string | undefined },
): Error {
  if (cause instanceof QError) return cause;
  if (isFileSystem(cause)) return fileError(cause, cause.path ?? request.id, 'cannot write into the cache') as Error;
  const { token, ...place } = request;
  const status = statusOf(cause);
  const clean = redacted(cause, token);
  const detail = { ...place, ...(status === undefined ? {} : { status }), cause: clean };
  if (status === 401 || status === 403) {
    const fix = token
      ? `open ${place.endpoint}/${place.id} in a browser, accept its conditions, and check that the token may read it`
      : `set HF_TOKEN (or the token option), after accepting the conditions on ${place.endpoint}/${place.id}; check the spelling of the id`;
    return new CheckpointError(
      op,
      token ? 'the token may not read this model' : 'the model is gated, private or does not exist',
      { ...detail, fix },
    );
  }
  if (status === 404) {
    return new CheckpointError(op, 'the hub has no such model, revision or file', {
      ...detail,
      fix: 'check the spelling of id and revision; a private model needs HF_TOKEN',
    });
  }
  if (status === 429)
    return new CheckpointError(op, 'the hub asks to slow down', { ...detail, fix: 'wait, or log in with HF_TOKEN' });
  if (status !== undefined)
    return new CheckpointError(op, 'the hub reports an error', {
      ...detail,
      why: clean.message,
      fix: 'try again later',
    });
  return new CheckpointError(op, 'the hub cannot be reached', {
    ...detail,
    why: clean.message,
    fix: 'check the network and HF_ENDPOINT, or give the path of a folder',
  });
}
