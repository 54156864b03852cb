import { assertKnownKeys, ConfigError } from '@q/config';
import { hubLimits, type HubLimits } from '../limits.js';

/** The limits with those of the caller. @throws ConfigError for unknown names and for what is no count. */
export function limitsWith(changes: Partial<HubLimits> = {}, defaults: HubLimits = hubLimits): HubLimits {
  const op = 'hub';
  if (typeof changes !== 'object' || changes === null)
    throw new ConfigError(op, 'limits must be an object', { got: typeof changes });
  assertKnownKeys(op, changes, Object.keys(hubLimits));
  const given = Object.entries(changes).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    const least = name === 'maxRetries' || name === 'maxRedirects' ? 0 : 1;
    // Timers of Node hold 31 bits; Infinity means none.
    if (typeof value !== 'number' || !(value >= least) || (Number.isFinite(value) && !Number.isSafeInteger(value)))
      throw new ConfigError(op, `the limit ${name} is not a count`, {
        got: typeof value === 'number' ? value : typeof value,
        fix: `give a whole number of at least ${least}, or Infinity`,
      });
  }
  return { ...defaults, ...Object.fromEntries(given) };
}
