// Names come from the server: only plain relative ones are joined to the cache.
import { CheckpointError } from '@q/config';
import { maxNameBytes } from '../limits.js';

const op = 'hub';
// Names that Windows gives to devices, with any ending.
const reserved = /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i;
/** Throws for a path that leaves the repository on any system; a list that has one is not believed in anything. */
export function checkListedPath(path: string, id: string): void {
  const parts = path.split('/');
  const drive = /^[A-Za-z]:/.test(path);
  if (!/[\\\0]/.test(path) && !drive && !parts.some((part) => part === '' || part === '.' || part === '..')) return;
  throw new CheckpointError(op, 'the hub lists a file outside the repository', { id, path: shown(path) });
}

/** Throws for a name that not every system can store as it is; only files that are wanted have to pass. */
export function checkStorable(path: string, id: string): void {
  const bad = path.split('/').some(
    (part) =>
      // eslint-disable-next-line no-control-regex
      /[\x00-\x1f\x7f:*?"<>|]|[. ]$/.test(part) || reserved.test(part) || Buffer.byteLength(part) > maxNameBytes,
  );
  if (bad)
    throw new CheckpointError(op, 'a file of the model has a name that cannot be stored', { id, path: shown(path) });
}

const shown = (path: string) => (path.length > 200 ? `${path.slice(0, 200)}...` : path);
