import { assertKnownKeys, ConfigError } from '@q/config';

/** What the answers of a hub may cost: times in milliseconds, sizes in bytes. Each can be raised by an option. */
export interface HubLimits {
  /** How long an answer about a revision or a list may stay away, or bring less than `minProgressBytes`. */
  readonly metadataTimeoutMs: number;
  /** The whole of such an answer, however steadily it drips. */
  readonly metadataTotalMs: number;
  /** How long a file may stay away, or bring less than `minProgressBytes`. */
  readonly downloadTimeoutMs: number;
  /** Fewer bytes than these are no progress: they restart no clock and forgive no retry. */
  readonly minProgressBytes: number;
  /** Tries after the first one, in a row without progress. 0: none. */
  readonly maxRetries: number;
  /** Pause before the first of them; each next one is twice as long, up to `maxBackoffMs`. */
  readonly backoffMs: number;
  readonly maxBackoffMs: number;
  /** Longest `Retry-After` that is waited for; a longer one is an error at once. */
  readonly maxRetryAfterMs: number;
  readonly maxRedirects: number;
  /** A revision, or all pages of a list together, decompressed. */
  readonly maxMetadataBytes: number;
  readonly maxPages: number;
  /** What is read of the text of an error. */
  readonly maxErrorBytes: number;
  /** A file that is not weights. */
  readonly maxSmallFileBytes: number;
  /** Files that are fetched of one repository. */
  readonly maxFiles: number;
  /** A download whose lock was not touched for so long has no owner any more. */
  readonly lockStaleMs: number;
  /** How often a waiting process looks whether another one has finished the download. */
  readonly lockPollMs: number;
  /** Partial files of other downloads that are older are deleted. */
  readonly stalePartialMs: number;
}

/** The one list of this package's limits towards a hub, with the reason of each. */
export const hubLimits: HubLimits = {
  metadataTimeoutMs: 10_000, // huggingface_hub: HF_HUB_ETAG_TIMEOUT
  metadataTotalMs: 120_000, // the largest real list (megabytes) over a modem
  downloadTimeoutMs: 10_000, // huggingface_hub: HF_HUB_DOWNLOAD_TIMEOUT
  minProgressBytes: 1024, // 100 bytes a second: slower than any line, so one byte now and then does not hold a caller
  maxRetries: 4, // with the pauses below 7.5 s: a restart of a proxy or a blip, not an outage
  backoffMs: 500,
  maxBackoffMs: 8_000,
  maxRetryAfterMs: 60_000, // longer than a person waits without a word
  maxRedirects: 10, // the hub takes two: a renamed repository, then the storage
  maxMetadataBytes: 64 * 2 ** 20, // 200,000 files; real lists have hundreds
  maxPages: 200, // of 1,000 entries each
  maxErrorBytes: 16 * 1024, // a message, not a web page
  maxSmallFileBytes: 512 * 2 ** 20, // the largest tokenizer.json in use has about 40 MB
  maxFiles: 5_000, // the largest models have a few hundred shards
  lockStaleMs: 15_000, // five missed touches
  lockPollMs: 100,
  stalePartialMs: 7 * 24 * 3_600_000, // a week in which nobody went on with it
};

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
