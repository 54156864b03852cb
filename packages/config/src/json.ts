import { ConfigError } from './errors.js';
import { pythonJsonFile } from './python-json.js';
import { MAX_CONFIG_CHARS, MAX_ENTRIES, MAX_JSON_DEPTH, MAX_KEYS } from './limits.js';

export type JsonValue = string | number | boolean | null | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: JsonValue;
}

/** Something odd that does not stop the work: an unknown key that was kept, an option that has no effect. */
export interface ConfigWarning {
  readonly code: 'unknown_key' | 'ignored' | 'changed' | 'deprecated' | 'mismatch' | 'invalid';
  /** The key or option meant, spelled as in its source. */
  readonly field: string;
  readonly message: string;
}

export interface ReadOptions {
  /** Called for each warning as it is found; they are also collected in `warnings` of the result. */
  onWarning?: (warning: ConfigWarning) => void;
}

export const isPlainObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && [Object.prototype, null].includes(Object.getPrototypeOf(value));

/** A frozen deep copy of arrays and plain objects; everything else passes through. */
export function frozenCopy<T>(value: T): T {
  if (Array.isArray(value)) return Object.freeze(value.map(frozenCopy)) as T;
  if (!isPlainObject(value)) return value;
  const copy: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) define(copy, key, frozenCopy(item));
  return Object.freeze(copy) as T;
}

/** Sets an own property, `__proto__` included (files come from strangers). */
export const define = (object: object, key: string, value: unknown): void => {
  Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true });
};

/** Deep equality of JSON-like values; the order of keys does not count. */
export function jsonEqual(a: unknown, b: unknown): boolean {
  if (Object.is(a, b) || a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((item, i) => jsonEqual(item, b[i]));
  if (!isPlainObject(a) || !isPlainObject(b)) return false;
  const keys = Object.keys(a);
  return (
    keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && jsonEqual(a[key], b[key]))
  );
}

export interface ParsedText {
  readonly value: JsonObject;
  /** Paths (keys and indices, `/` between them) of the numbers written with a point or an exponent: Python's floats. */
  readonly floats: ReadonlySet<string>;
  /** Spaces per level. */
  readonly indent: number;
}

/** What a file said, from text or from an object (then the spelling of numbers is not known). */
export type Parsed = { readonly value: unknown } & Partial<Omit<ParsedText, 'value'>>;

/**
 * Parses the text of a configuration file, noting which numbers are Python floats (`1.0` and `1` are the same number in
 * JavaScript but not in Python).
 * @throws ConfigError when the text is no JSON object, is too long, or is nested too deep
 */
export function parseConfigText(text: string, op: string): ParsedText {
  const value = parseJsonText(text, op);
  if (!isPlainObject(value)) throw new ConfigError(op, 'must be a JSON object', { got: kindOf(value) });
  return {
    value: value as JsonObject,
    floats: findFloats(text),
    indent: /^\s*\{\r?\n( +)/.exec(text)?.[1].length ?? 2,
  };
}

const kindOf = (value: unknown): string => (value === null ? 'null' : Array.isArray(value) ? 'an array' : typeof value);

/**
 * Parses JSON from a stranger. @throws ConfigError for text that is no JSON, longer than `MAX_CONFIG_CHARS`, of
 * more than `MAX_ENTRIES` or nested deeper than `MAX_JSON_DEPTH`
 */
export function parseJsonText(text: string, op: string): unknown {
  if (text.length > MAX_CONFIG_CHARS)
    throw new ConfigError(op, `has ${text.length} characters`, { why: `at most ${MAX_CONFIG_CHARS} are read` });
  checkJsonBounds(text, op);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ConfigError(op, 'not valid JSON', { cause, why: cause instanceof Error ? cause.message : undefined });
  }
  return value;
}

const tooDeep = (op: string): ConfigError =>
  new ConfigError(op, `nested more than ${MAX_JSON_DEPTH} deep`, { why: 'no configuration is' });

/**
 * Index of the quote that ends the JSON string which began before `from`; -1 when nothing does. A loop, since a regular
 * expression keeps a place to come back to for each escape.
 */
export function jsonStringEnd(text: string, from: number): number {
  for (let end = text.indexOf('"', from); ; end = text.indexOf('"', end + 1)) {
    let slashes = 0;
    while (text[end - 1 - slashes] === '\\') slashes++;
    if (slashes % 2 === 0) return end;
  }
}

/**
 * Counts brackets and commas outside of strings; what is no JSON is left to the parser.
 * @throws ConfigError for more than `MAX_ENTRIES`, or nesting deeper than `MAX_JSON_DEPTH`
 */
export function checkJsonBounds(text: string, op: string): void {
  let depth = 0;
  let entries = 1;
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (char === '"') {
      i = jsonStringEnd(text, i + 1);
      if (i < 0) return;
    } else if (char === '{' || char === '[') {
      if (++depth > MAX_JSON_DEPTH) throw tooDeep(op);
    } else if (char === '}' || char === ']') depth--;
    else if (char === ',' && ++entries > MAX_ENTRIES)
      throw new ConfigError(op, `has more than ${MAX_ENTRIES} entries`, { why: 'no configuration has so many' });
  }
}

/** The depth bound for values that came as objects; cycles end here too. @throws ConfigError */
export function checkDepth(value: unknown, op: string, left = MAX_JSON_DEPTH): void {
  if (typeof value !== 'object' || value === null || !(Array.isArray(value) || isPlainObject(value))) return;
  if (left === 0) throw tooDeep(op);
  for (const item of Object.values(value)) checkDepth(item, op, left - 1);
}

/** @throws ConfigError for more keys than any configuration has. */
export function checkKeyCount(value: object, op: string): void {
  const count = Object.keys(value).length;
  if (count > MAX_KEYS)
    throw new ConfigError(op, `it has ${count} keys`, { why: `the limit is ${MAX_KEYS}, more than any model has` });
}

/** The paths of the floats in a text that is known to be valid JSON. */
function findFloats(text: string): Set<string> {
  const floats = new Set<string>();
  const path: (string | number)[] = [];
  const number = /-?\d[\d.eE+-]*/y;
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (char === '[') path.push(0);
    else if (char === '{') path.push('');
    else if (char === ']' || char === '}') path.pop();
    else if (char === ',') {
      const last = path.at(-1);
      if (typeof last === 'number') path[path.length - 1] = last + 1;
    } else if (char === '"') {
      const end = jsonStringEnd(text, i + 1);
      if (typeof path.at(-1) === 'string' && isKey(text, end + 1))
        path[path.length - 1] = JSON.parse(text.slice(i, end + 1)) as string;
      i = end;
    } else if (char === '-' || (char >= '0' && char <= '9')) {
      number.lastIndex = i;
      const [literal] = number.exec(text) ?? [char];
      if (/[.eE]/.test(literal)) floats.add(path.join('/'));
      i += literal.length - 1;
    }
  }
  return floats;
}

/** Whether a string that ended before `from` is a key. */
function isKey(text: string, from: number): boolean {
  const colon = /\s*:/y;
  colon.lastIndex = from;
  return colon.test(text);
}

// Fields that are floats in Python: written as 6.0 even when JavaScript holds 6. transformers refuses an integer
// llm_int8_threshold.
const PYTHON_FLOATS = [
  'llm_int8_threshold damp_percent temperature top_p min_p top_h typical_p epsilon_cutoff eta_cutoff repetition_penalty',
  'encoder_repetition_penalty length_penalty diversity_penalty guidance_scale max_time penalty_alpha assistant_confidence_threshold',
  'assistant_ensemble_weight attention_dropout initializer_range rms_norm_eps rope_theta factor low_freq_factor',
  'layerdrop dropout dropout_rate activation_dropout hidden_dropout layer_norm_eps layer_norm_epsilon initializer_factor classifier_dropout init_std high_freq_factor attention_factor beta_fast beta_slow mscale mscale_all_dim routed_scaling_factor partial_rotary_factor rotary_pct short_factor long_factor',
  'norm_epsilon llama_4_scaling_beta final_logit_softcapping attn_logit_softcapping embedding_multiplier residual_multiplier attention_multiplier logits_scaling',
].flatMap((line) => line.split(' '));

// The float inside a list that also holds integers.
const FLOAT_PLACES = /(^|\/)(sequence_bias\/\d+|exponential_decay_length_penalty)\/1$/;

export interface TextOptions {
  /** Sort the keys of every object, as transformers does. Default false: keys keep their order. */
  sortKeys?: boolean;
  /** Paths of more numbers that are floats, beside the known float fields. */
  floats?: ReadonlySet<string>;
  /** Use only `floats`, not the known fields: for a file whose own spelling is known. Default false. */
  exactFloats?: boolean;
  /** Spaces per level. Default 2. */
  indent?: number;
}

/**
 * The text Python's `json.dumps(value, indent=2)` writes, newline at the end included: floats keep their point, `1e-05`
 * its form, anything but ASCII is escaped.
 */
export function toPythonJson(
  value: JsonObject,
  { sortKeys = false, floats, exactFloats = false, indent = 2 }: TextOptions = {},
): string {
  const isFloat = (number: number, key: string, path: string): boolean =>
    !Number.isInteger(number) ||
    floats?.has(path) === true ||
    (!exactFloats && (PYTHON_FLOATS.includes(key) || FLOAT_PLACES.test(path)));
  return pythonJsonFile(value, { sortKeys, indent, isFloat });
}
