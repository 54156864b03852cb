import type { z } from 'zod';
import { describeValue } from './checks.js';
import { ConfigError } from './errors.js';
import { assertKnownKeys } from './names.js';
import type { ConfigWarning, JsonObject, JsonValue, Parsed, ParsedText, ReadOptions } from './json.js';
import { define, frozenCopy, isPlainObject, jsonEqual, parseConfigText, toPythonJson } from './json.js';

/** How a class of options maps to a JSON object on disk. */
export interface Spec<T extends object> {
  /** Class name; opens error messages. */
  readonly op: string;
  /** Checks and completes the options (camelCase). */
  readonly schema: z.ZodType<T>;
  /** Option name to key on disk, in the order in which keys are written. */
  readonly keys: Readonly<Record<keyof T & string, string>>;
  /** Further keys on disk that repeat an option. */
  readonly twins?: Readonly<Record<string, keyof T & string>>;
  /** Keys on disk that are no option but well known: kept without a warning. */
  readonly kept?: readonly string[];
  /** Constant keys that a fresh object writes as well. */
  readonly constants?: JsonObject;
  /** Rules between fields; may return changed values. */
  readonly check?: (values: T, warn: (warning: ConfigWarning) => void) => T;
  /** Options whose null is not written by an object that was not read from a file. */
  readonly omitNull?: readonly (keyof T & string)[] | 'all';
}

interface Source {
  readonly raw: JsonObject;
  /** How the text was written, when it came as text. */
  readonly style?: Pick<ParsedText, 'floats' | 'indent'>;
  /** The options as they were read; absent until the object exists. */
  readonly initial?: Readonly<Record<string, unknown>>;
}

/** What every configuration object can do besides holding its fields. */
export interface ConfigObject {
  /** What was odd when this object was made, in order. */
  readonly warnings: readonly ConfigWarning[];
  /** The snake_case object for disk. What was read is written back as it was, unknown keys and key order included. */
  toJSON(): JsonObject;
  /**
   * `toJSON()` as text, exactly as Python writes it (floats keep their point). An object not read from a file has
   * sorted keys.
   */
  toText(): string;
}

/** Numbers that JSON has not, as they are written in code. */
const asWritten = (value: unknown): unknown =>
  typeof value === 'bigint' ? `${value}n` : typeof value === 'number' && !Number.isFinite(value) ? `${value}` : value;

function textOf(value: unknown): string {
  if (value === undefined) return 'missing';
  if (typeof value === 'number' || typeof value === 'bigint') return String(asWritten(value));
  try {
    return JSON.stringify(value, (_, each: unknown) => asWritten(each)) ?? describeValue(value);
  } catch {
    return describeValue(value); // it holds itself
  }
}

/** A value in a message; files may hold long ones, and callers what no file can. */
export function show(value: unknown): string {
  const text = textOf(value);
  return text.length > 100 ? `${text.slice(0, 97)}...` : text;
}

/** Runs a zod schema; the first issue becomes a ConfigError naming field, value and rule. */
export function validate<T>(
  op: string,
  schema: z.ZodType<T>,
  input: unknown,
  nameOf: (field: string) => string = (field) => field,
): T {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const field = issue.path.map(String).join('.');
  const value = issue.path.reduce<unknown>(
    (at, key) => (typeof at === 'object' && at !== null ? (at as Record<PropertyKey, unknown>)[key] : undefined),
    input,
  );
  throw new ConfigError(op, `${nameOf(field)} is ${show(value)}`, { why: issue.message });
}

const sources = new WeakMap<object, Source>();

const toJson = (value: unknown): JsonValue =>
  Array.isArray(value) || isPlainObject(value) || typeof value !== 'object' ? (value as JsonValue) : null;

function encode<T extends object>(spec: Spec<T>, self: T): JsonObject {
  const source = sources.get(self);
  const values = self as Record<string, unknown>;
  const out: Record<string, JsonValue> = {};
  const fieldOf = new Map<string, string>(Object.entries(spec.keys).map(([field, key]) => [key as string, field]));
  for (const [key, field] of Object.entries(spec.twins ?? {})) fieldOf.set(key, field);
  for (const [key, rawValue] of Object.entries(source?.raw ?? {})) {
    const field = fieldOf.get(key);
    const kept = field === undefined || jsonEqual(values[field], source?.initial?.[field]);
    define(out, key, kept ? rawValue : toJson(values[field]));
  }
  const omit = (field: string): boolean =>
    values[field] === null &&
    (spec.omitNull === 'all' || (spec.omitNull as readonly string[] | undefined)?.includes(field) === true);
  const fresh = source ? [] : Object.entries(spec.constants ?? {});
  for (const [key, value] of fresh) define(out, key, value);
  for (const [key, field] of fieldOf) {
    if (Object.hasOwn(out, key)) continue;
    const wanted = source ? !jsonEqual(values[field], source.initial?.[field]) : !omit(field);
    if (wanted) define(out, key, toJson(values[field]));
  }
  if (source) return out;
  return Object.fromEntries(Object.entries(out).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Who set an option: the caller, a file, or nobody (then it is the default of the class). */
export type OptionSource = 'caller' | 'file' | 'default';
type Origins = ReadonlyMap<string, Exclude<OptionSource, 'default'>>;

const origins = new WeakMap<object, Origins>();

/** Who set an option of a configuration object. */
export const sourceOf = (config: object, field: string): OptionSource => origins.get(config)?.get(field) ?? 'default';

/** Options on their way into a constructor: read from JSON, or taken over from another object. */
export class Decoded {
  constructor(
    readonly options: Readonly<Record<string, unknown>>,
    readonly origins: Origins,
    /** The file that the object remembers. */
    readonly source?: Source,
    readonly warnings: readonly ConfigWarning[] = [],
    readonly onWarning?: ReadOptions['onWarning'],
  ) {}

  /** The same without some options, and with more warnings. */
  without(fields: ReadonlySet<string>, warnings: readonly ConfigWarning[]): Decoded {
    const options = Object.fromEntries(Object.entries(this.options).filter(([field]) => !fields.has(field)));
    return new Decoded(options, this.origins, this.source, [...this.warnings, ...warnings], this.onWarning);
  }
}

const given = (options: object): string[] =>
  Object.entries(options)
    .filter(([, value]) => value !== undefined)
    .map(([field]) => field);

/** Reads the JSON form (an object or the text of a file) for a class made by `configClass`. */
export function decode<T extends object>(spec: Spec<T>, input: unknown, { onWarning }: ReadOptions = {}): Decoded {
  const parsed: Parsed = typeof input === 'string' ? parseConfigText(input, spec.op) : { value: input };
  if (!isPlainObject(parsed.value))
    throw new ConfigError(spec.op, 'must be a JSON object', { got: show(parsed.value) });
  const raw = frozenCopy(parsed.value) as JsonObject;
  const options: Record<string, unknown> = {};
  const known = new Set<string>([
    ...(spec.kept ?? []),
    ...Object.keys(spec.twins ?? {}),
    ...Object.keys(spec.constants ?? {}),
  ]);
  for (const [field, key] of Object.entries<string>(spec.keys)) {
    known.add(key);
    // null is Python's None: not set, whatever the default is.
    if (Object.hasOwn(raw, key) && raw[key] !== null) options[field] = raw[key];
  }
  for (const [key, field] of Object.entries<string>(spec.twins ?? {})) {
    if (!Object.hasOwn(raw, key) || raw[key] === null) continue;
    if (options[field] === undefined) options[field] = raw[key];
    else if (options[field] !== raw[key])
      throw new ConfigError(
        spec.op,
        `${key} is ${show(raw[key])} but ${(spec.keys as Record<string, string>)[field]} is ${show(options[field])}`,
        { why: 'both name the same setting' },
      );
  }
  const warnings: ConfigWarning[] = [];
  for (const key of Object.keys(raw)) {
    if (known.has(key)) continue;
    warnings.push({
      code: 'unknown_key',
      field: key,
      message: `[${spec.op}] unknown key ${key}; it is kept and written back, and has no effect`,
    });
  }
  const style = parsed.floats && { floats: parsed.floats, indent: parsed.indent ?? 2 };
  const read = new Map(Object.keys(options).map((field) => [field, 'file' as const]));
  return new Decoded(options, read, { raw, style }, warnings, onWarning);
}

type Fields<T> = { readonly [K in keyof T]: T[K] };

/** Makes the base class of a configuration: frozen fields from validated options, and their JSON form. */
export function configClass<T extends object>(
  spec: Spec<T>,
): new (options?: Partial<T> | Decoded) => Fields<T> & ConfigObject {
  const keys = spec.keys as Readonly<Record<string, string>>;
  class Config {
    constructor(input: Partial<T> | Decoded = {}) {
      if (!(input instanceof Decoded)) assertKnownKeys(spec.op, input, Object.keys(keys));
      const { options, source, onWarning, ...decoded } = input instanceof Decoded ? input : fresh(input);
      const warnings = [...decoded.warnings];
      const checked = validate(spec.op, spec.schema, options, (field) =>
        decoded.origins.get(field) === 'file' ? (keys[field] ?? field) : field,
      );
      const values = spec.check ? spec.check(checked, (warning) => warnings.push(warning)) : checked;
      for (const field of Object.keys(keys))
        define(this, field, frozenCopy((values as Record<string, unknown>)[field] ?? null));
      Object.defineProperty(this, 'warnings', {
        value: Object.freeze(warnings.map((warning) => Object.freeze(warning))),
      });
      origins.set(this, decoded.origins);
      if (source) sources.set(this, { ...source, initial: source.initial ?? ({ ...this } as Record<string, unknown>) });
      for (const warning of warnings) onWarning?.(warning);
      Object.freeze(this);
    }

    toJSON(): JsonObject {
      return encode(spec, this as unknown as T);
    }

    toText(): string {
      const source = sources.get(this);
      const unchanged = source !== undefined && jsonEqual({ ...this }, source.initial);
      return toPythonJson(this.toJSON(), {
        sortKeys: !source,
        ...source?.style,
        exactFloats: unchanged && source.style !== undefined,
      });
    }
  }
  return Config as unknown as new (options?: Partial<T> | Decoded) => Fields<T> & ConfigObject;
}

const fresh = (options: object): Decoded =>
  new Decoded(options as Record<string, unknown>, new Map(given(options).map((field) => [field, 'caller'])));

/**
 * Options for a changed copy that still remembers the file the original was read from.
 * @param who sets them; a change by nobody replaces only what nobody has set
 */
export function changed<T extends object>(
  spec: Spec<T>,
  self: T,
  changes: Partial<T>,
  who: 'caller' | 'default' = 'caller',
): Decoded {
  assertKnownKeys(spec.op, changes, Object.keys(spec.keys));
  const options = { ...self } as Record<string, unknown>;
  const known = new Map(origins.get(self));
  for (const field of given(changes)) {
    if (who === 'default' && known.has(field)) continue;
    options[field] = (changes as Record<string, unknown>)[field];
    if (who === 'caller') known.set(field, 'caller');
  }
  return new Decoded(options, known, sources.get(self));
}

/** Whether a configuration was read from a file, or is a copy of one that was. */
export const isFromFile = (config: object): boolean => sources.has(config);
