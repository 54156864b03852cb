// Files come from strangers. These bounds lie well above what anybody publishes and well below what would exhaust the
// memory, the stack or the arithmetic of whoever believes the numbers. A number beyond its bound is a ConfigError,
// before anything is allocated or counted by it.

/** Characters of a configuration file. The largest published ones (labels of 20,000 classes) take about 2 MB. */
export const MAX_CONFIG_CHARS = 16 * 2 ** 20;

/** Levels of a JSON document. No configuration has ten; deeper ones exhaust the stack of whoever walks them. */
export const MAX_JSON_DEPTH = 100;

/** Entries of a list (token ids, names, module patterns). A checker makes an object of each wrong one. */
export const MAX_LIST = 2 ** 18;

/** Entries of all lists and objects of a file together. The largest published ones (labels) have some 40,000. */
export const MAX_ENTRIES = 2 ** 18;

/** Keys of a configuration itself. Published ones have about a hundred; each unknown one is compared with all known. */
export const MAX_KEYS = 10_000;

/** Layers. Published models have at most some hundreds; each one is a dozen objects on the host. */
export const MAX_LAYERS = 10_000;

/** Tokens of a vocabulary. The largest published ones have about a million. */
export const MAX_VOCAB = 2 ** 24;

/** Width of the residual stream. The widest published models have some tens of thousands. */
export const MAX_HIDDEN = 2 ** 18;

/** Width between the matrices of an MLP. */
export const MAX_INTERMEDIATE = 2 ** 20;

/** Heads of a layer. */
export const MAX_HEADS = 2 ** 13;

/** Elements of a head. Published: 16 to 512. Rotary tables and factor lists have half as many entries. */
export const MAX_HEAD_DIM = 2 ** 13;

/** Tokens of a context: positions are 32-bit integers in every kernel. */
export const MAX_POSITIONS = 2 ** 31 - 1;

/** Elements of all matrices together, ten times the largest published model. Bytes of it stay exact in a double. */
export const MAX_PARAMETERS = 2e13;

/** Base of the rotary frequencies. Below 1 frequencies grow beyond any bound; published: 1e4 to 1e9. */
export const ROPE_THETA = { min: 1, max: 1e30 } as const;

/** Stretch of a context. Published: up to a few hundred. */
export const MAX_ROPE_FACTOR = 1e6;

/** Per-pair factors, rotations and magnitudes of rotary scalings, kept away from where float32 overflows. */
export const ROPE_NUMBER = { min: 1e-6, max: 1e6 } as const;

/** Epsilon of a norm: a normal float32 above 0, at most 1. */
export const NORM_EPS = { min: 1e-30, max: 1 } as const;

/** Characters of one pattern of `llmInt8SkipModules`; module paths have at most some hundreds. */
export const MAX_PATTERN_CHARS = 1000;

/** What the counted repeats of a pattern (`{1000}`) may multiply to, since its program grows by that. */
export const MAX_PATTERN_REPEATS = 1000;

/** Parentheses of a pattern that are open at once. */
export const MAX_PATTERN_DEPTH = 50;

/** Steps of a match with look-around or back references, which may go back: milliseconds. Names take hundreds. */
export const MAX_PATTERN_STEPS = 100_000;

/** Steps of parsing all patterns of a list: characters, times what their repeats multiply to. About a second. */
export const MAX_PATTERNS_SIZE = 300_000;

/**
 * Work of one list of patterns on all names: one for a comparison with a path, more for an expression. Seconds. The
 * longest lists name each of 2,000 layers, which takes 4 million.
 */
export const MAX_PATTERNS_WORK = 20_000_000;

/** Letters of a name that may be a misspelling: names are a few words, and comparing costs the length squared. */
export const MAX_NAME = 100;

/** Characters of a value in a message, and of a message: names from files can be megabytes. */
export const MAX_SHOWN = 1000;
export const MAX_MESSAGE = 8000;
