// What a file from a stranger may ask of this machine. Every limit of the package is here, with its reason; the README
// lists them.

/** Longest safetensors header in bytes: the limit of the safetensors library. Half a million tensors fit. */
export const maxHeaderBytes = 100_000_000;

/** Longest JSON or text file in bytes: an index of a million tensors is about this long. `maxBytes` raises it. */
export const maxJsonBytes = 100_000_000;

/**
 * Longest config.json, generation_config.json, tokenizer_config.json, chat template and the like in bytes. Real ones
 * stay below 1 MB (tokenizer_config.json with a thousand added tokens); they are parsed on the main thread.
 */
export const maxConfigBytes = 16_000_000;

/** Longest tokenizer.json, vocabulary or merges file in bytes. The largest published ones have about 35 MB. */
export const maxTokenizerBytes = 256_000_000;

/** Deepest nesting of a JSON file: configs reach 6; code that walks deeper values would exhaust the stack. */
export const maxJsonDepth = 100;

/**
 * Longest pickle of a PyTorch file in bytes: the list of its tensors, about 150 bytes each, without their data. It is
 * parsed on the main thread.
 */
export const maxPickleBytes = 64_000_000;

/** Most entries of a PyTorch file's archive: one for each storage. Half a million tensors fit. */
export const maxArchiveEntries = 500_000;

/** Most dimensions of a tensor: torch has 64. */
export const maxRank = 64;

/** Longest quantization state of a 4-bit weight in bytes: bitsandbytes writes about 150. */
export const maxQuantStateBytes = 4096;

/** Bytes that one read call asks for: an abort waits for at most this much. */
export const readChunkBytes = 16 * 1024 * 1024;

/** Names that a message or a warning lists before it says how many more there are. */
export const maxListedNames = 5;

/** Longest name of a file in bytes: what file systems take. */
export const maxNameBytes = 255;

/** Digits of a whole number in a JSON file that is kept as Python keeps it (`sys.int_info.default_max_str_digits`). */
export const maxDigits = 4300;

/** Prefixes of names that are looked at for where a model's weights are: each costs a walk over the parameters. */
export const maxPrefixes = 16;

/** A staging folder that no process has touched for this long belongs to nobody, whatever its owner seems to do. */
export const abandonedAfterMs = 24 * 60 * 60 * 1000;

/** Two readings of one process' start may differ by this much. */
export const clockToleranceSeconds = 5;

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
