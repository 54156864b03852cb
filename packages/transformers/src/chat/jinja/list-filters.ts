// Filters of lists and dicts, by jinja2's filters.py.
import { getItem, getOnlyAttribute } from './attributes.js';
import type { Budget } from './budget.js';
import type { BuiltIn } from './built-in.js';
import { compare, equals, sortBy } from './compare.js';
import { fail } from './errors.js';
import { binaryOperation } from './operators.js';
import { joined, str } from './text.js';
import {
  asIndex,
  asText,
  codePoints,
  Dict,
  defined,
  Iterator,
  iterate,
  lengthOf,
  Tuple,
  truthy,
  typeName,
  Undefined,
  type Value,
} from './values.js';

type Filter = BuiltIn<Value>;

/** What a filter's `attribute` reads: `a.b.0` goes through items. */
export function attributeGetter(attribute: Value, budget: Budget, otherwise: Value = null): (item: Value) => Value {
  if (attribute === null) return (item) => item;
  if (typeof attribute === 'string') budget.step(attribute.length);
  const parts: Value[] =
    typeof attribute === 'string'
      ? attribute.split('.').map((part) => (/^\d+$/.test(part) ? Number(part) : part))
      : [attribute];
  return (item) => {
    let value = item;
    for (const part of parts) {
      budget.step();
      value = getItem(value, part, budget);
      if (otherwise !== null && value instanceof Undefined) value = otherwise;
    }
    return value;
  };
}

const lower = (value: Value, budget: Budget): Value => {
  if (typeof value !== 'string') return value;
  budget.write(value.length);
  return value.toLowerCase();
};

/** What is sorted or compared by: an attribute, in small letters unless case counts. */
function keyGetter(attribute: Value, caseSensitive: Value, budget: Budget): (item: Value) => Value {
  const get = attributeGetter(attribute, budget);
  return truthy(caseSensitive) ? get : (item) => lower(get(item), budget);
}

function sort(
  budget: Budget,
  value: Value,
  reverse: Value = false,
  caseSensitive: Value = false,
  attribute: Value = null,
): Value {
  if (typeof attribute === 'string') budget.step(attribute.length);
  const attributes: Value[] = typeof attribute === 'string' ? attribute.split(',') : [attribute];
  const getters = attributes.map((name) => keyGetter(name, caseSensitive, budget));
  const key = (item: Value): Value => (getters.length === 1 ? getters[0](item) : getters.map((get) => get(item)));
  return sortBy(iterate(value, budget), key, truthy(reverse), budget);
}

function dictsort(
  budget: Budget,
  value: Value,
  caseSensitive: Value = false,
  by: Value = 'key',
  reverse: Value = false,
): Value {
  if (!(value instanceof Dict)) return fail(`dictsort needs a dict, not ${typeName(defined(value))}`);
  if (by !== 'key' && by !== 'value') fail('You can only sort by either "key" or "value"');
  const key = keyGetter(by === 'key' ? 0 : 1, caseSensitive, budget);
  budget.step(value.size);
  return sortBy(
    value.items().map((item) => new Tuple(item)),
    key,
    truthy(reverse),
    budget,
  );
}

function unique(budget: Budget, value: Value, caseSensitive: Value = false, attribute: Value = null): Value {
  const key = keyGetter(attribute, caseSensitive, budget);
  const seen = new Dict();
  const items = iterate(value, budget).filter((item) => {
    budget.step(6); // a table that grows
    const id = key(item);
    budget.key(id);
    if (seen.has(id)) return false;
    seen.set(id, true);
    return true;
  });
  return new Iterator(items);
}

const extreme = (sign: 1 | -1): Filter => ({
  parameters: ['case_sensitive', 'attribute'],
  run: (budget, value, caseSensitive = false, attribute = null) => {
    const key = keyGetter(attribute, caseSensitive, budget);
    const items = iterate(value, budget);
    if (items.length === 0) return new Undefined('No aggregated item, sequence was empty.');
    let [best] = items;
    for (const item of items) if (sign * compare(key(item), key(best), budget) > 0) best = item;
    return best;
  },
});

function groupby(
  budget: Budget,
  value: Value,
  attribute: Value = null,
  otherwise: Value = null,
  caseSensitive: Value = false,
): Value {
  const get = attributeGetter(attribute, budget, otherwise);
  const key = (item: Value) => (truthy(caseSensitive) ? get(item) : lower(get(item), budget));
  const groups: { key: Value; items: Value[] }[] = [];
  for (const item of sortBy(iterate(value, budget), key, false, budget)) {
    const last = groups.at(-1);
    if (last && equals(last.key, key(item), budget)) last.items.push(item);
    else groups.push({ key: key(item), items: [item] });
  }
  return groups.map(({ items }) => new Tuple([get(items[0]), items]));
}

function batch(budget: Budget, value: Value, count: Value | undefined, fill: Value = null): Value {
  const size = asIndex(count!, 'linecount');
  if (size < 1) fail('the size of a batch must be positive');
  const items = iterate(value, budget);
  const batches = Array.from({ length: Math.ceil(items.length / size) }, (_, i) =>
    items.slice(i * size, (i + 1) * size),
  );
  const last = batches.at(-1);
  if (fill === null || !last || last.length === size) return new Iterator(batches);
  budget.step(size);
  return new Iterator([...batches.slice(0, -1), [...last, ...new Array<Value>(size - last.length).fill(fill)]]);
}

function slices(budget: Budget, value: Value, count: Value | undefined, fill: Value = null): Value {
  const number = asIndex(count!, 'slices');
  if (number < 1) fail('the number of slices must be positive');
  budget.step(number);
  const items = iterate(value, budget);
  const [each, extra] = [Math.floor(items.length / number), items.length % number];
  const parts = Array.from({ length: number }, (_, i) => {
    const start = i * each + Math.min(i, extra);
    const part = items.slice(start, start + each + (i < extra ? 1 : 0));
    return fill !== null && i >= extra ? [...part, fill] : part;
  });
  return new Iterator(parts);
}

function join(budget: Budget, value: Value, separator: Value = '', attribute: Value = null): string {
  const get = attributeGetter(attribute, budget);
  const parts = iterate(value, budget).map((item) => str(get(item), budget));
  return joined(parts, str(separator, budget), budget);
}

function sum(budget: Budget, value: Value, attribute: Value = null, start: Value = 0): Value {
  const get = attributeGetter(attribute, budget);
  if (typeof start === 'string') fail("sum() can't sum strings [use ''.join(seq) instead]");
  return iterate(value, budget).reduce<Value>((total, item) => binaryOperation('+', total, get(item), budget), start);
}

function reverse(budget: Budget, value: Value): Value {
  const items = [...iterate(value, budget)].reverse();
  return typeof value === 'string'
    ? joined(items as string[], '', budget)
    : new Iterator(items, 'list_reverseiterator');
}

function first(budget: Budget, value: Value): Value {
  const item = value instanceof Iterator ? value.next() : iterate(value, budget)[0];
  return item === undefined ? new Undefined('No first item, sequence was empty.') : item;
}

function last(budget: Budget, value: Value): Value {
  if (value instanceof Iterator) return fail(`'${typeName(value)}' object is not reversible`);
  const item = iterate(value, budget).at(-1);
  return item === undefined ? new Undefined('No last item, sequence was empty.') : item;
}

function length(budget: Budget, value: Value): Value {
  if (typeof value === 'string') {
    budget.read(value.length);
    return codePoints(value);
  }
  return lengthOf(value) ?? fail(`object of type '${typeName(value)}' has no len()`);
}

const count: Filter = { parameters: [], run: length };
const otherwise: Filter = {
  parameters: ['default_value', 'boolean'],
  run: (_, value, instead = '', boolean = false) =>
    value instanceof Undefined || (truthy(boolean) && !truthy(value)) ? instead : value,
};

export const listFilters: readonly (readonly [string, Filter])[] = [
  ['length', count],
  ['count', count],
  ['default', otherwise],
  ['d', otherwise],
  ['first', { parameters: [], run: first }],
  ['last', { parameters: [], run: last }],
  ['list', { parameters: [], run: (budget, value) => [...iterate(value, budget)] }],
  ['join', { parameters: ['d', 'attribute'], run: join }],
  ['sum', { parameters: ['attribute', 'start'], run: sum }],
  ['reverse', { parameters: [], run: reverse }],
  ['sort', { parameters: ['reverse', 'case_sensitive', 'attribute'], run: sort }],
  ['dictsort', { parameters: ['case_sensitive', 'by', 'reverse'], run: dictsort }],
  ['unique', { parameters: ['case_sensitive', 'attribute'], run: unique }],
  ['max', extreme(1)],
  ['min', extreme(-1)],
  ['groupby', { parameters: ['attribute', 'default', 'case_sensitive'], required: 1, run: groupby }],
  ['batch', { parameters: ['linecount', 'fill_with'], required: 1, run: batch }],
  ['slice', { parameters: ['slices', 'fill_with'], required: 1, run: slices }],
  [
    'items',
    {
      parameters: [],
      run: (budget, value) => {
        if (value instanceof Undefined) return new Iterator([]);
        if (!(value instanceof Dict)) return fail('Can only get item pairs from a mapping.');
        budget.step(value.size);
        return new Iterator(value.items().map((item) => new Tuple(item)));
      },
    },
  ],
  [
    'attr',
    {
      parameters: ['name'],
      required: 1,
      run: (budget, value, name) => getOnlyAttribute(value, asText(name!, 'the name'), budget),
    },
  ],
];
