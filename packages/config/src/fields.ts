import type { z } from 'zod';
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
  readonly initial: Readonly<Record<string, unknown>>;
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

/** A value in a message; files may hold long ones. */
export function show(value: unknown): string {
  const text = value === undefined ? 'missing' : (JSON.stringify(value) ?? String(value));
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
    const kept = field === undefined || jsonEqual(values[field], source?.initial[field]);
    define(out, key, kept ? rawValue : toJson(values[field]));
  }
  const omit = (field: string): boolean =>
    values[field] === null &&
    (spec.omitNull === 'all' || (spec.omitNull as readonly string[] | undefined)?.includes(field) === true);
  const fresh = source ? [] : Object.entries(spec.constants ?? {});
  for (const [key, value] of fresh) define(out, key, value);
  for (const [key, field] of fieldOf) {
    if (Object.hasOwn(out, key)) continue;
    const wanted = source ? !jsonEqual(values[field], source.initial[field]) : !omit(field);
    if (wanted) define(out, key, toJson(values[field]));
  }
  if (source) return out;
  return Object.fromEntries(Object.entries(out).sort(([a], [b]) => (a < b ? -1 : 1)));
}

const isSource = (value: unknown): value is Decoded => value instanceof Decoded;

/** Options read from JSON, on their way into a constructor. */
class Decoded {
  constructor(
    readonly options: object,
    readonly raw: JsonObject,
    readonly style: Source['style'],
    readonly warnings: readonly ConfigWarning[],
    readonly onWarning?: ReadOptions['onWarning'],
    readonly initial?: Readonly<Record<string, unknown>>,
  ) {}
}

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
    if (Object.hasOwn(raw, key)) options[field] = raw[key];
  }
  for (const [key, field] of Object.entries<string>(spec.twins ?? {})) {
    if (!Object.hasOwn(raw, key)) continue;
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
  return new Decoded(options, raw, style, warnings, onWarning);
}

type Fields<T> = { readonly [K in keyof T]: T[K] };

/** Makes the base class of a configuration: frozen fields from validated options, and their JSON form. */
export function configClass<T extends object>(
  spec: Spec<T>,
): new (options?: Partial<T> | Decoded) => Fields<T> & ConfigObject {
  class Config {
    constructor(given: Partial<T> | Decoded = {}) {
      const decoded = isSource(given) ? given : undefined;
      const options = decoded ? decoded.options : (given as object);
      if (!decoded) assertKnownKeys(spec.op, options, Object.keys(spec.keys));
      const warnings = [...(decoded?.warnings ?? [])];
      const checked = validate(spec.op, spec.schema, options, (field) =>
        decoded ? ((spec.keys as Record<string, string>)[field] ?? field) : field,
      );
      const values = spec.check ? spec.check(checked, (warning) => warnings.push(warning)) : checked;
      for (const field of Object.keys(spec.keys))
        define(this, field, frozenCopy((values as Record<string, unknown>)[field] ?? null));
      Object.defineProperty(this, 'warnings', {
        value: Object.freeze(warnings.map((warning) => Object.freeze(warning))),
      });
      if (decoded)
        sources.set(this, {
          raw: decoded.raw,
          style: decoded.style,
          initial: decoded.initial ?? ({ ...this } as Record<string, unknown>),
        });
      for (const warning of decoded?.onWarning ? warnings : []) decoded?.onWarning?.(warning);
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

/** Options for a changed copy that still remembers the file the original was read from. */
export function changed<T extends object>(spec: Spec<T>, self: T, changes: Partial<T>): Partial<T> | Decoded {
  assertKnownKeys(spec.op, changes, Object.keys(spec.keys));
  const options = { ...self } as Record<string, unknown>;
  for (const [field, value] of Object.entries(changes)) if (value !== undefined) options[field] = value;
  const source = sources.get(self);
  return source
    ? new Decoded(options, source.raw, source.style, [], undefined, source.initial)
    : (options as Partial<T>);
}

export type { Decoded };
