// Values of JavaScript to values of templates and back.
import { MAX_TEMPLATE_NESTING } from '../../limits.js';
import { fail } from './errors.js';
import {
  Callable,
  Dict,
  DictView,
  Float,
  isList,
  Iterator,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js';

function objectToValue(value: object, path: string, depth: number): Value {
  if (depth > MAX_TEMPLATE_NESTING) return fail(`${path} is nested more than ${MAX_TEMPLATE_NESTING} deep`);
  if (Array.isArray(value)) return value.map((item, i) => toValue(item, `${path}[${i}]`, depth + 1));
  if (value instanceof Map) return dictOf([...value], path, depth);
  const prototype: unknown = Object.getPrototypeOf(value);
  // A plain object of another realm has a prototype of its own, which has none.
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    const { toJSON } = value as { toJSON?: unknown };
    if (typeof toJSON === 'function') return toValue(toJSON.call(value), path, depth + 1);
    if (Symbol.iterator in value) return toValue([...(value as Iterable<unknown>)], path, depth + 1);
  }
  return dictOf(Object.entries(value), path, depth);
}

const dictOf = (entries: readonly (readonly [unknown, unknown])[], path: string, depth: number): Dict =>
  new Dict(
    entries
      .filter(([, item]) => item !== undefined)
      .map(([key, item]) => [toValue(key, path, depth + 1), toValue(item, `${path}.${String(key)}`, depth + 1)]),
  );

/**
 * A copy of a value as templates see it: whole numbers are int, others float; properties that are undefined are left
 * out, as in JSON. Functions can be called with values as they were here.
 * @param path what to call it in errors
 * @throws TemplateError for what has no counterpart, and for cycles
 */
export function toValue(value: unknown, path: string, depth = 0): Value {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'bigint':
      return Number.isSafeInteger(Number(value)) ? Number(value) : value;
    case 'number':
      return Number.isSafeInteger(value) ? value : new Float(value);
    case 'undefined':
      return new Undefined(`${path} is undefined`);
    case 'object':
      return value === null ? null : objectToValue(value, path, depth);
    case 'function':
      return new Callable(path, (positional) =>
        toValue((value as (...args: unknown[]) => unknown)(...positional.map((item) => fromValue(item))) ?? null, path),
      );
    default:
      return fail(`${path} is a ${typeof value}`);
  }
}

/** For the caller's own functions. */
function fromValue(value: Value, depth = 0): unknown {
  if (depth > MAX_TEMPLATE_NESTING) return fail(`an argument is nested more than ${MAX_TEMPLATE_NESTING} deep`);
  const list = (items: readonly Value[]) => items.map((item) => fromValue(item, depth + 1));
  if (value instanceof Float) return value.value;
  if (value instanceof Undefined) return undefined;
  if (isList(value)) return list(value);
  if (value instanceof Tuple) return list(value.items);
  if (value instanceof DictView || value instanceof Range) return list(value.list());
  if (value instanceof Iterator) return list(value.rest());
  if (value instanceof Dict) {
    const entries = value.items().map(([key, item]) => [String(key), fromValue(item, depth + 1)] as const);
    return Object.assign(Object.create(null) as object, Object.fromEntries(entries));
  }
  return typeof value === 'object' && value !== null
    ? fail(`a ${typeName(value)} cannot be given to a function`)
    : value;
}
