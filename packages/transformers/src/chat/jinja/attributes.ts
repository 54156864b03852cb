// `object.name`, `object[index]` and slices. Every name is looked up in tables written here: nothing of JavaScript's
// objects can be reached, whatever the name is.
import type { Budget } from './budget.js';
import { boundMethod, type BuiltIn } from './built-in.js';
import { equals } from './compare.js';
import { fail } from './errors.js';
import { formatText } from './format.js';
import { dictMethods, listMethods } from './methods.js';
import { stringMethods } from './string-methods.js';
import {
  asIndex,
  asText,
  Callable,
  codePoints,
  defined,
  Dict,
  isInteger,
  isList,
  isPlain,
  Loop,
  Namespace,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js';

const MUTATORS: Readonly<Record<string, readonly string[]>> = {
  list: ['append', 'clear', 'extend', 'insert', 'pop', 'remove', 'reverse', 'sort'],
  dict: ['clear', 'pop', 'popitem', 'setdefault', 'update'],
};

/** str.format and str.format_map, whose fields may read attributes and items. */
function formatMethod(text: string, name: string, budget: Budget): Callable {
  const read = { attribute: getAttribute, item: getItem };
  return new Callable(name, (positional, named) => {
    if (name === 'format') return formatText(text, positional, named, read, budget);
    const [mapping] = positional;
    if (!(mapping instanceof Dict)) return fail('format_map() takes one mapping');
    const fields = new Map(mapping.items().map(([key, value]) => [asText(key, 'a key'), value]));
    return formatText(text, [], fields, read, budget);
  });
}

function stringAttribute(text: string, name: string, budget: Budget): Value | undefined {
  if (name === 'format' || name === 'format_map') return formatMethod(text, name, budget);
  return tableMethod(stringMethods, text, name, budget);
}

function loopAttribute(loop: Loop, name: string, budget: Budget): Value | undefined {
  const { items, index0, depth0 } = loop;
  const neighbour = (at: number): Value => (at in items ? items[at] : new Undefined(`there is no ${name}`));
  const values: Readonly<Record<string, () => Value>> = {
    index: () => index0 + 1,
    index0: () => index0,
    revindex: () => items.length - index0,
    revindex0: () => items.length - index0 - 1,
    first: () => index0 === 0,
    last: () => index0 === items.length - 1,
    length: () => items.length,
    previtem: () => neighbour(index0 - 1),
    nextitem: () => neighbour(index0 + 1),
    depth: () => depth0 + 1,
    depth0: () => depth0,
    cycle: () =>
      new Callable('cycle', (values) =>
        values.length > 0 ? values[index0 % values.length] : fail('no items for cycling'),
      ),
    changed: () => new Callable('changed', (values) => loopChanged(loop, values, budget)),
  };
  return Object.hasOwn(values, name) ? values[name]() : undefined;
}

function loopChanged(loop: Loop, values: readonly Value[], budget: Budget): boolean {
  const changed = loop.changed === undefined || !equals(loop.changed, values, budget);
  if (changed) loop.changed = values;
  return changed;
}

/** The attribute itself, without items of the same name; undefined when there is none. */
function ownAttribute(object: Value, name: string, budget: Budget): Value | undefined {
  const type = typeName(object);
  if (Object.hasOwn(MUTATORS, type) && MUTATORS[type].includes(name)) return unsafe(name, type);
  if (typeof object === 'string') return stringAttribute(object, name, budget);
  if (object instanceof Dict) return tableMethod(dictMethods, object, name, budget);
  if (isList(object) || object instanceof Tuple || object instanceof Range)
    return tableMethod(listMethods, object, name, budget);
  if (object instanceof Namespace) return object.attributes.get(name);
  if (object instanceof Loop) return loopAttribute(object, name, budget);
  if (object instanceof Callable) return object.attributes.get(name);
  return undefined;
}

function tableMethod<T>(
  table: ReadonlyMap<string, BuiltIn<T>>,
  object: T,
  name: string,
  budget: Budget,
): Callable | undefined {
  const found = table.get(name);
  return found && boundMethod(name, found, object, budget);
}

const unsafe = (name: string, type: string): Undefined =>
  new Undefined(`access to attribute '${name}' of '${type}' object is unsafe.`);

/** What jinja2 gives for something that is not there. */
function missing(object: Value, name: Value): Undefined {
  if (isInteger(name)) return new Undefined(`${typeName(object)} object has no element ${name}`);
  const shown = typeof name === 'string' ? `'${name.slice(0, 100)}'` : typeName(name);
  if (typeof name === 'string' && name.startsWith('__')) return unsafe(name.slice(0, 100), typeName(object));
  return new Undefined(`'${typeName(object)} object' has no attribute ${shown}`);
}

/** `object.name`: the attribute, else the item. */
export function getAttribute(object: Value, name: string, budget: Budget): Value {
  const own = ownAttribute(defined(object), name, budget);
  if (own !== undefined) return own;
  const item = object instanceof Dict ? object.get(name) : undefined;
  return item === undefined ? missing(object, name) : item;
}

/** The attribute of the filter `attr`: no item will do. */
export function getOnlyAttribute(object: Value, name: string, budget: Budget): Value {
  budget.key(name);
  const own = ownAttribute(defined(object), name, budget);
  return own === undefined ? missing(object, name) : own;
}

/** `object[index]`: the item, else the attribute. */
export function getItem(object: Value, index: Value, budget: Budget): Value {
  defined(object);
  budget.key(index);
  if (object instanceof Dict && !isUnhashable(index)) {
    const item = object.get(index);
    if (item !== undefined) return item;
  } else if (typeof index === 'number' || typeof index === 'boolean') {
    const item = elementAt(object, Number(index), budget);
    if (item !== undefined) return item;
  }
  const own = typeof index === 'string' ? ownAttribute(object, index, budget) : undefined;
  return own === undefined ? missing(object, index) : own;
}

const isUnhashable = (value: Value): boolean => typeof value === 'object' && value !== null;

function elementAt(object: Value, index: number, budget: Budget): Value | undefined {
  if (typeof object === 'string') return characterAt(object, index, budget);
  if (isList(object)) return object.at(index);
  if (object instanceof Tuple) return object.items.at(index);
  if (!(object instanceof Range)) return undefined;
  const at = index < 0 ? index + object.length : index;
  return at >= 0 && at < object.length ? object.start + at * object.step : undefined;
}

function characterAt(text: string, index: number, budget: Budget): string | undefined {
  budget.read(text.length);
  if (isPlain(text)) return text.at(index);
  budget.write(text.length * 4);
  return [...text].at(index);
}

/** Bounds of a slice, as slice.indices() of Python. */
function sliceIndices(bounds: readonly (Value | undefined)[], length: number): [number, number, number] {
  const [start, stop, step = 1] = bounds.map((bound) =>
    bound === undefined || bound === null ? undefined : asIndex(bound, 'slice indices'),
  );
  if (step === 0) fail('slice step cannot be zero');
  const lowest = step < 0 ? -1 : 0;
  const highest = step < 0 ? length - 1 : length;
  const clamp = (bound: number | undefined, otherwise: number) =>
    bound === undefined ? otherwise : Math.min(Math.max(bound < 0 ? bound + length : bound, lowest), highest);
  return [clamp(start, step < 0 ? highest : 0), clamp(stop, step < 0 ? -1 : length), step];
}

function sliceList<T>(items: readonly T[], bounds: readonly (Value | undefined)[], budget: Budget): T[] {
  const [start, stop, step] = sliceIndices(bounds, items.length);
  const count = Math.max(0, Math.ceil((stop - start) / step));
  budget.step(count);
  return Array.from({ length: count }, (_, i) => items[start + i * step]);
}

function sliceText(text: string, bounds: readonly (Value | undefined)[], budget: Budget): string {
  budget.read(text.length);
  if (!isPlain(text)) {
    budget.write(codePoints(text) * 4);
    return sliceList([...text], bounds, budget).join('');
  }
  const [start, stop, step] = sliceIndices(bounds, text.length);
  if (step === 1) {
    budget.write(Math.max(0, stop - start));
    return text.slice(start, Math.max(start, stop));
  }
  budget.write(text.length * 4);
  return sliceList(text.split(''), bounds, budget).join('');
}

/** `object[start:stop:step]`. */
export function getSlice(object: Value, bounds: readonly (Value | undefined)[], budget: Budget): Value {
  if (typeof object === 'string') return sliceText(object, bounds, budget);
  if (isList(object)) return sliceList(object, bounds, budget);
  if (object instanceof Tuple) return new Tuple(sliceList(object.items, bounds, budget));
  if (object instanceof Range) {
    const [start, stop, step] = sliceIndices(bounds, object.length);
    return new Range(object.start + start * object.step, object.start + stop * object.step, object.step * step);
  }
  return fail(`'${typeName(defined(object))}' object is not subscriptable`);
}
