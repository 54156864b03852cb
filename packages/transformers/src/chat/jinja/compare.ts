// Equality, order and membership as Python's.
import type { Budget } from './budget.js';
import { fail } from './errors.js';
import { find } from './search.js';
import {
  defined,
  Dict,
  DictView,
  Float,
  isInteger,
  isList,
  iterate,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js';

/** The number that a value is; undefined for what is none. */
export function numberOf(value: Value): number | bigint | undefined {
  if (isInteger(value)) return value;
  if (typeof value === 'boolean') return Number(value);
  return value instanceof Float ? value.value : undefined;
}

const sequence = (value: Value): readonly Value[] | undefined =>
  isList(value) ? value : value instanceof Tuple ? value.items : undefined;

function nested<T>(budget: Budget, run: () => T): T {
  budget.enter();
  const result = run();
  budget.leave();
  return result;
}

function dictsEqual(a: Dict, b: Dict, budget: Budget): boolean {
  budget.step(a.size);
  if (a.size !== b.size) return false;
  return a.items().every(([key, value]) => {
    budget.key(key);
    const other = b.get(key);
    return other !== undefined && equals(value, other, budget);
  });
}

/** Whether they have the same numbers. */
const rangesEqual = (a: Range, b: Range): boolean =>
  a.length === b.length && (a.length === 0 || (a.start === b.start && (a.length === 1 || a.step === b.step)));

/** How many items from the first on are equal. */
function commonStart(left: readonly Value[], right: readonly Value[], budget: Budget): number {
  const at = left.findIndex((item, i) => {
    budget.step();
    return i >= right.length || !equals(item, right[i], budget);
  });
  return at < 0 ? left.length : at;
}

/** `a == b`. */
export function equals(a: Value, b: Value, budget: Budget): boolean {
  if (typeof a === 'string' || typeof b === 'string') {
    if (typeof a === 'string' && typeof b === 'string' && a.length === b.length) budget.read(a.length);
    return a === b;
  }
  const [x, y] = [numberOf(a), numberOf(b)];
  // Loose: 1n and 1 are one number in Python.
  if (x !== undefined || y !== undefined) return x !== undefined && y !== undefined && x == y;
  return nested(budget, () => {
    if (a instanceof Undefined || b instanceof Undefined) return a instanceof Undefined && b instanceof Undefined;
    if (a instanceof Dict && b instanceof Dict) return dictsEqual(a, b, budget);
    if (a instanceof Range && b instanceof Range) return rangesEqual(a, b);
    const [left, right] = [sequence(a), sequence(b)];
    if (left && right && isList(a) === isList(b))
      return left.length === right.length && commonStart(left, right, budget) === left.length;
    return a === b;
  });
}

/** Negative, zero or positive as `a` sorts before, with or behind `b`. @throws TemplateError for other types. */
export function compare(a: Value, b: Value, budget: Budget): number {
  defined(a);
  defined(b);
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== undefined && y !== undefined) return x < y ? -1 : x > y ? 1 : x == y ? 0 : NaN;
  if (typeof a === 'string' && typeof b === 'string') {
    budget.read(a.length + b.length); // either may have to be made one piece first
    return compareText(a, b);
  }
  const [left, right] = [sequence(a), sequence(b)];
  if (left && right && isList(a) === isList(b))
    return nested(budget, () => {
      const at = commonStart(left, right, budget);
      if (at === left.length) return left.length - right.length;
      return at >= right.length ? 1 : compare(left[at], right[at], budget);
    });
  return fail(`'<' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`);
}

/** By code points: a surrogate pair sorts behind the units from U+E000. */
function compareText(a: string, b: string): number {
  if (a === b) return 0;
  const rank = (unit: number) =>
    unit >= 0xd800 && unit < 0xe000 ? unit + 0x2000 : unit >= 0xe000 ? unit - 0x800 : unit;
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return rank(a.charCodeAt(i)) - rank(b.charCodeAt(i));
  return a.length - b.length;
}

/** `item in container`. */
export function contains(container: Value, item: Value, budget: Budget): boolean {
  if (typeof container === 'string') {
    if (typeof item !== 'string') fail(`'in <string>' requires string as left operand, not ${typeName(item)}`);
    return find(container, item, 0, budget) >= 0;
  }
  budget.key(item);
  if (container instanceof Dict) return container.has(item);
  if (container instanceof DictView && container.part === 'keys') return container.dict.has(item);
  if (typeof container !== 'object' || container === null)
    return fail(`argument of type '${typeName(container)}' is not iterable`);
  return iterate(container, budget).some((other) => equals(item, other, budget));
}

/** As {@link compare}, for texts that were gone through once. */
function compareKeys(a: Value, b: Value, budget: Budget): number {
  if (typeof a !== 'string' || typeof b !== 'string') return compare(a, b, budget);
  budget.read(Math.min(a.length, b.length));
  return compareText(a, b);
}

/** Sorted as sorted() does: stable, by keys that are computed once. */
export function sortBy(
  items: readonly Value[],
  keyOf: (item: Value) => Value,
  reverse: boolean,
  budget: Budget,
): Value[] {
  const direction = reverse ? -1 : 1;
  const keyed = items.map((item) => {
    const key = keyOf(item);
    budget.key(key);
    return { item, key };
  });
  keyed.sort((a, b) => {
    budget.step();
    return direction * compareKeys(a.key, b.key, budget);
  });
  return keyed.map(({ item }) => item);
}
