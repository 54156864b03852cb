// Reads the parts of a tokenizer's files: what is missing or of another type is named with its file and place.
import { CheckpointError, UnsupportedError } from '@q/config';
import { tokenizerLimits, type TokenizerLimits } from '../limits.js';

export type Json = Readonly<Record<string, unknown>>;

export const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A value for a message. Lists and objects are not written out: they may be deep. */
export const shown = (value: unknown): string => {
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'a list' : 'an object';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
};

/** An object of a file, with its place in it. */
export class Section {
  constructor(
    readonly file: string,
    /** Such as `pre_tokenizer.pretokenizers[1]`; empty for the whole file. */
    readonly path: string,
    readonly value: Json,
    readonly limits: TokenizerLimits = tokenizerLimits,
  ) {}

  #at(key: string): string {
    return this.path === '' ? key : `${this.path}.${key}`;
  }

  /** @throws CheckpointError that names the file and the key. */
  fail(key: string, what: string): never {
    throw new CheckpointError('tokenizer', `${this.file}: ${this.#at(key)} ${what}`, {
      fix: 'use a file as the tokenizers library writes it',
    });
  }

  /** @throws UnsupportedError for a component that Q does not have. */
  unsupported(known: readonly string[]): never {
    throw new UnsupportedError('tokenizer', `${this.file}: ${this.#at('type')} is ${shown(this.value.type)}`, {
      fix: `use one of ${known.join(', ')}`,
    });
  }

  #get<T>(key: string, is: (value: unknown) => value is T, wanted: string, fallback?: T): T {
    const value = Object.hasOwn(this.value, key) ? this.value[key] : undefined;
    if ((value === undefined || value === null) && fallback !== undefined) return fallback;
    if (is(value)) return value;
    return this.fail(
      key,
      value === undefined ? `is missing; it must be ${wanted}` : `is ${shown(value)}, not ${wanted}`,
    );
  }

  string(key: string, fallback?: string): string {
    return this.#get(key, (v) => typeof v === 'string', 'a string', fallback);
  }

  /** A string, or undefined when it is null or missing. */
  optionalString(key: string): string | undefined {
    return this.value[key] === undefined || this.value[key] === null ? undefined : this.string(key);
  }

  boolean(key: string, fallback?: boolean): boolean {
    return this.#get(key, (v) => typeof v === 'boolean', 'true or false', fallback);
  }

  /** A whole number from `min`. */
  integer(key: string, fallback?: number, min = 0): number {
    const whole = (v: unknown): v is number => Number.isSafeInteger(v) && (v as number) >= min;
    return this.#get(key, whole, `a whole number from ${min}`, fallback);
  }

  list(key: string, fallback?: readonly unknown[]): readonly unknown[] {
    return this.#get(key, (v): v is readonly unknown[] => Array.isArray(v), 'a list', fallback);
  }

  /** One of a few words. */
  word<T extends string>(key: string, words: readonly T[], fallback?: T): T {
    const is = (v: unknown): v is T => (words as readonly unknown[]).includes(v);
    return this.#get(key, is, `one of ${words.join(', ')}`, fallback);
  }

  section(key: string): Section {
    return new Section(this.file, this.#at(key), this.#get(key, isObject, 'an object'), this.limits);
  }

  /** A section, or undefined when it is null or missing. */
  optionalSection(key: string): Section | undefined {
    return this.value[key] === undefined || this.value[key] === null ? undefined : this.section(key);
  }

  sections(key: string, fallback?: readonly unknown[]): Section[] {
    return this.list(key, fallback).map((value, i) =>
      isObject(value)
        ? new Section(this.file, `${this.#at(key)}[${i}]`, value, this.limits)
        : this.fail(`${key}[${i}]`, `is ${shown(value)}, not an object`),
    );
  }
}

/**
 * How deep objects and lists lie in each other, and how many objects have a `type`, up to the limits given.
 * @throws CheckpointError beyond them.
 */
export function checkNesting(json: unknown, file: string, limits: { depth: number; components: number }): void {
  const waiting: { value: unknown; depth: number; components: boolean }[] = [
    { value: json, depth: 0, components: true },
  ];
  let components = 0;
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const { value, depth } = next;
    if (typeof value !== 'object' || value === null) continue;
    if (depth > limits.depth)
      throw new CheckpointError('tokenizer', `${file} is nested deeper than ${limits.depth} levels`, {});
    if ('type' in value && ++components > limits.components)
      throw new CheckpointError('tokenizer', `${file} has more than ${limits.components} components`, {});
    for (const child of Array.isArray(value) ? (value as unknown[]) : Object.values(value))
      if (typeof child === 'object') waiting.push({ value: child, depth: depth + 1, components: true });
  }
}
