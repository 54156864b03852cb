// What a file from a stranger may cost this package. Every limit is here, with its reason; docs/security.md lists them.
import { assertKnownKeys, ConfigError, describeValue } from '@q/config';
import type { TemplateLimits } from './chat/jinja/errors.js';

/**
 * What a tokenizer of a stranger may cost, at most. Real files stay far below every number; what is above is refused
 * with an error that names the limit.
 */
export const tokenizerLimits = {
  /** Bytes of tokenizer.json, tokenizer.model, vocab.json or merges.txt. The largest published ones have 35 MB. */
  vocabularyFileBytes: 256 << 20,
  /** Bytes of tokenizer_config.json and the other small files. The largest published ones have a few MB. */
  configFileBytes: 32 << 20,
  /** Heap of the thread that parses a large tokenizer.json, in MB: nested lists take 30 times their text. */
  parserHeapMegabytes: 4096,
  /** Milliseconds for which that thread may be silent: reading 256 MiB takes a slow machine 10 s. */
  parserMilliseconds: 120_000,
  /** Objects and lists inside each other. Published files have 8; recursion over them must not end the stack. */
  depth: 64,
  /** Normalizers, pre-tokenizers, post-processors and decoders together. Published files have a dozen. */
  components: 256,
  /** Tokens and pieces. The largest published vocabulary has 0.3 million. */
  tokens: 1 << 23,
  /** Highest token id: tables are indexed by id. */
  tokenId: (1 << 24) - 1,
  /**
   * Characters of the pieces of a Unigram model, or of the added tokens, with shared beginnings counted once: 40 bytes
   * of memory each. The largest published vocabularies have 3 million.
   */
  trieNodes: 1 << 24,
  /** Characters of a regular expression; published ones have a few hundred. Translating one takes memory. */
  patternLength: 1 << 16,
  /**
   * Milliseconds that encoding or decoding a text may take, whatever its length: a regular expression of exponential
   * time or a token of a million letters would otherwise hold the event loop for ever.
   */
  textMilliseconds: 5_000,
  /** Further milliseconds for each million characters; a slow machine needs about 1,000 for ordinary text. */
  textMillisecondsPerMillion: 10_000,
  /** Characters that a normalizer may make of one; the longest real one (Unicode's U+FDFA) makes 18 of one. */
  growth: 64,
  /** Characters of text that growth is always allowed to reach. */
  growthFrom: 1 << 20,
  /**
   * Texts up to this length (in UTF-16 units) and with patterns known to be harmless are encoded without a clock, whose
   * thread costs 0.1 to 0.4 ms: quadratic work on them stays in milliseconds.
   */
  unwatchedLength: 2048,
} as const;

/** Limits of a tokenizer, as {@link tokenizerLimits} has them. */
export type TokenizerLimits = { readonly [name in keyof typeof tokenizerLimits]: number };

/** The limits with those of the caller. @throws ConfigError for unknown names and for what is no count. */
export function tokenizerLimitsWith(op: string, changes: Partial<TokenizerLimits> = {}): TokenizerLimits {
  if (typeof changes !== 'object' || changes === null || Array.isArray(changes))
    throw new ConfigError(op, `tokenizerLimits is ${describeValue(changes)}`, { fix: 'give an object' });
  assertKnownKeys(`${op} tokenizerLimits`, changes, Object.keys(tokenizerLimits));
  const given = Object.entries(changes).filter(([, value]) => value !== undefined);
  for (const [name, value] of given)
    if (!(Number.isSafeInteger(value) || value === Infinity) || value < 1)
      throw new ConfigError(op, `tokenizerLimits.${name} is ${describeValue(value)}`, {
        fix: 'give a whole number from 1, or Infinity',
      });
  return { ...tokenizerLimits, ...Object.fromEntries(given) };
}

/**
 * Characters of a chat template's text: the longest that models ship have about 40,000. Bounds the time and memory of
 * reading one (about 0.1 s).
 */
export const MAX_TEMPLATE_SIZE = 2 ** 18;

/**
 * Steps of one rendering: an expression or statement evaluated, an item looped over, 16 characters read or 8 written.
 * A conversation of 2,000 messages with 100 tools needs about 200,000; this many take about a second.
 */
export const MAX_TEMPLATE_STEPS = 2_500_000;

/**
 * Characters of the rendered prompt and of every string made on the way: 4 million tokens of English. Bounds memory
 * (32 MB a string), since strings are built faster than steps count.
 */
export const MAX_TEMPLATE_LENGTH = 2 ** 24;

/** Numbers of a `range()`: what Python's sandbox allows (jinja2.sandbox.MAX_RANGE). */
export const MAX_TEMPLATE_RANGE = 100_000;

/**
 * Blocks, brackets and operators inside each other in a template's text. Python's own parser ends near 80 (its
 * recursion limit of 1,000 by 12 calls a level); templates have fewer than 10.
 */
export const MAX_TEMPLATE_NESTING = 100;

/**
 * Evaluations inside each other: about six for a call of a macro, so that a macro may call itself 150 times, and
 * levels of a value that is printed or compared. Keeps within the default stack of a thread of Node.js (984 KB).
 */
export const MAX_TEMPLATE_DEPTH = 1000;

/** Bits of an integer that a template computes; Python's grow without end. */
export const MAX_TEMPLATE_INTEGER_BITS = 4096;

/** Parsed templates that a tokenizer keeps: more than any model names, few enough to be no leak. */
export const MAX_TEMPLATES_KEPT = 16;

/** Files in `additional_chat_templates/`, and templates in `tokenizer_config.json`: the most that models ship is 4. */
export const MAX_TEMPLATES = 64;

/** Width and precision of a number or text that a template formats: a template pads with a few spaces. */
export const MAX_TEMPLATE_WIDTH = 1000;

/** The defaults of the option `templateLimits`. */
export const TEMPLATE_LIMITS: TemplateLimits = {
  size: MAX_TEMPLATE_SIZE,
  steps: MAX_TEMPLATE_STEPS,
  length: MAX_TEMPLATE_LENGTH,
  range: MAX_TEMPLATE_RANGE,
};
