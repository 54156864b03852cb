// Python's values as templates see them. Nothing here is an object of the caller: messages are copied in (`fromJs`), so
// that a template reaches data and the functions written for it, never JavaScript's own.
import type { Budget } from './budget.js';
import { fail } from './errors.js';

/** `number` and `bigint` (beyond 2^53) are Python's int. */
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Float
  | Undefined
  | readonly Value[]
  | Tuple
  | Dict
  | DictView
  | Iterator
  | Range
  | Namespace
  | Callable
  | Loop;

export class Float {
  constructor(readonly value: number) {}
}

/** Something that is not there: prints as nothing, and fails when it is used. */
export class Undefined {
  constructor(
    /** What using it says. */
    readonly message: string,
  ) {}
}

export class Tuple {
  constructor(readonly items: readonly Value[]) {}
}

type Key = string | number | bigint | boolean | symbol | null;

const UNDEFINED_KEY = Symbol('undefined');

/** A dict: keys are what Python hashes alike (1, 1.0 and true are one key), shown as first given. */
export class Dict {
  readonly #entries = new Map<Key, [Value, Value]>();

  constructor(entries: Iterable<readonly [Value, Value]> = []) {
    for (const [key, value] of entries) this.set(key, value);
  }

  get size(): number {
    return this.#entries.size;
  }

  #slot(key: Value): Key {
    if (key instanceof Undefined) return UNDEFINED_KEY;
    const primitive = key instanceof Float ? key.value : key;
    if (typeof primitive === 'object' && primitive !== null) return fail(`unhashable type: '${typeName(key)}'`);
    if (typeof primitive === 'boolean' && this.#entries.has(Number(primitive))) return Number(primitive);
    if ((primitive === 0 || primitive === 1) && this.#entries.has(primitive === 1)) return primitive === 1;
    return primitive;
  }

  get(key: Value): Value | undefined {
    return this.#entries.get(this.#slot(key))?.[1];
  }

  has(key: Value): boolean {
    return this.#entries.has(this.#slot(key));
  }

  set(key: Value, value: Value): void {
    const slot = this.#slot(key);
    this.#entries.set(slot, [this.#entries.get(slot)?.[0] ?? key, value]);
  }

  keys(): Value[] {
    return this.items().map(([key]) => key);
  }

  values(): Value[] {
    return this.items().map(([, value]) => value);
  }

  items(): (readonly [Value, Value])[] {
    return [...this.#entries.values()];
  }
}

/** What keys(), values() and items() give. */
export class DictView {
  constructor(
    readonly dict: Dict,
    readonly part: 'keys' | 'values' | 'items',
  ) {}

  list(): readonly Value[] {
    return this.part === 'items' ? this.dict.items().map((item) => new Tuple(item)) : this.dict[this.part]();
  }
}

/** What can be read once: the results of map, select and their like. */
export class Iterator {
  #items: readonly Value[];
  #at = 0;

  constructor(
    items: readonly Value[],
    /** Python's name of its type. */
    readonly type = 'generator',
  ) {
    this.#items = items;
  }

  next(): Value | undefined {
    return this.#items[this.#at++];
  }

  rest(): readonly Value[] {
    const rest = this.#items.slice(this.#at);
    this.#items = [];
    return rest;
  }
}

export class Range {
  constructor(
    readonly start: number,
    readonly stop: number,
    readonly step: number,
  ) {}

  get length(): number {
    return Math.max(0, Math.ceil((this.stop - this.start) / this.step));
  }

  list(): number[] {
    return Array.from({ length: this.length }, (_, i) => this.start + i * this.step);
  }
}

export class Namespace {
  readonly attributes = new Map<string, Value>();
}

export type Keywords = ReadonlyMap<string, Value>;

/** A macro, method, filter's function or the like. */
export class Callable {
  constructor(
    readonly name: string,
    readonly call: (positional: readonly Value[], named: Keywords) => Value,
    /** What a template may read of it. */
    readonly attributes: Keywords = new Map(),
  ) {}
}

/** The variable `loop`. */
export class Loop {
  index0 = -1;
  changed: readonly Value[] | undefined;

  constructor(
    readonly items: readonly Value[],
    readonly depth0: number,
    /** `loop(items)` of a recursive loop. */
    readonly recurse: ((items: Value) => Value) | undefined,
  ) {}
}

export const isInteger = (value: Value): value is number | bigint =>
  typeof value === 'number' || typeof value === 'bigint';

export const isList = (value: Value): value is readonly Value[] => Array.isArray(value);

const classNames = new Map<unknown, string>([
  [Float, 'float'],
  [Undefined, 'Undefined'],
  [Tuple, 'tuple'],
  [Dict, 'dict'],
  [Range, 'range'],
  [Namespace, 'Namespace'],
  [Callable, 'function'],
  [Loop, 'LoopContext'],
]);

/** The name of the Python type. */
export function typeName(value: Value): string {
  if (value === null) return 'NoneType';
  if (typeof value === 'string') return 'str';
  if (typeof value === 'boolean') return 'bool';
  if (isInteger(value)) return 'int';
  if (isList(value)) return 'list';
  if (value instanceof DictView) return `dict_${value.part}`;
  if (value instanceof Iterator) return value.type;
  return classNames.get(value.constructor) ?? 'object';
}

/** Number of items, characters or entries; undefined for what has no len(). */
export function lengthOf(value: Value): number | undefined {
  if (typeof value === 'string') return value.length === 0 ? 0 : codePoints(value);
  if (isList(value)) return value.length;
  if (value instanceof Tuple) return value.items.length;
  if (value instanceof Dict) return value.size;
  if (value instanceof DictView) return value.dict.size;
  if (value instanceof Range) return value.length;
  if (value instanceof Undefined) return 0;
  return value instanceof Loop ? value.items.length : undefined;
}

const ASTRAL = /[\ud800-\udbff]/;

/** Whether a text's UTF-16 units are its characters. */
export const isPlain = (text: string): boolean => !ASTRAL.test(text);

/** Characters as Python counts them. */
export function codePoints(text: string): number {
  if (isPlain(text)) return text.length;
  let count = 0;
  for (const _ of text) count++;
  return count;
}

export function truthy(value: Value): boolean {
  if (value instanceof Float) return value.value !== 0;
  if (typeof value === 'object' && value !== null) return (lengthOf(value) ?? 1) > 0;
  return Boolean(value);
}

/** The items that a for loop goes over, or undefined for what is not iterable. Reads an iterator to its end. */
export function itemsOf(value: Value, budget: Budget): readonly Value[] | undefined {
  const items = rawItems(value);
  if (items) budget.step(items.length);
  return items;
}

function rawItems(value: Value): readonly Value[] | undefined {
  if (isList(value)) return value;
  if (typeof value === 'string') return isPlain(value) ? value.split('') : [...value];
  if (value instanceof Tuple) return value.items;
  if (value instanceof Dict) return value.keys();
  if (value instanceof DictView || value instanceof Range) return value.list();
  if (value instanceof Iterator) return value.rest();
  return value instanceof Undefined ? [] : undefined;
}

/** As {@link itemsOf}. @throws TemplateError for what is not iterable. */
export function iterate(value: Value, budget: Budget): readonly Value[] {
  if (typeof value === 'string') budget.write(value.length * 4);
  return itemsOf(value, budget) ?? fail(`'${typeName(value)}' object is not iterable`);
}

/** @throws TemplateError when the value is undefined. */
export function defined(value: Value): Value {
  return value instanceof Undefined ? fail(value.message) : value;
}

/** A value as a whole number. @throws TemplateError naming what it is for. */
export function asIndex(value: Value, what: string): number {
  defined(value);
  if (typeof value === 'boolean') return Number(value);
  if (typeof value === 'number') return value;
  return fail(`${what} must be an integer, not '${typeName(value)}'`);
}

/** A value as text that is text. @throws TemplateError naming what it is for. */
export function asText(value: Value, what: string): string {
  return typeof value === 'string' ? value : fail(`${what} must be str, not '${typeName(defined(value))}'`);
}
