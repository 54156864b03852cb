// Filters and tests by name, with those that call others.
import type { Budget } from './budget.js';
import { makeTests } from './built-in-tests.js';
import { bind, type BuiltIn } from './built-in.js';
import { fail } from './errors.js';
import { attributeGetter, listFilters } from './list-filters.js';
import { numberFilters } from './number-filters.js';
import { formatFilter, textFilters } from './text-filters.js';
import { asText, Dict, Iterator, iterate, truthy, type Keywords, type Value } from './values.js';

type Variadic = (budget: Budget, value: Value, positional: readonly Value[], named: Keywords) => Value;

const filters: ReadonlyMap<string, BuiltIn<Value>> = new Map([...textFilters, ...numberFilters, ...listFilters]);

const call =
  (name: string, { parameters, required = 0, run }: BuiltIn<Value>): Variadic =>
  (budget, value, positional, named) =>
    run(budget, value, ...bind(name, parameters, required, positional, named));

function map(budget: Budget, value: Value, positional: readonly Value[], named: Keywords): Value {
  if (!truthy(value)) return new Iterator([]);
  if (positional.length > 0) {
    const name = asText(positional[0], 'the name of a filter');
    return new Iterator(
      iterate(value, budget).map((item) => {
        budget.step(positional.length);
        return applyFilter(name, budget, item, positional.slice(1), named);
      }),
    );
  }
  const [attribute, otherwise] = bind('map', ['attribute', 'default'], 0, [], named);
  if (attribute === undefined) return fail('map requires a filter argument');
  return new Iterator(iterate(value, budget).map(attributeGetter(attribute, budget, otherwise)));
}

/** select, reject and their forms that look at an attribute. */
const selection =
  (wanted: boolean, byAttribute: boolean): Variadic =>
  (budget, value, positional, named) => {
    if (!truthy(value)) return new Iterator([]);
    if (byAttribute && positional.length === 0) return fail('Missing parameter for attribute name');
    const get = byAttribute ? attributeGetter(positional[0], budget) : (item: Value) => item;
    const [name, ...rest] = positional.slice(byAttribute ? 1 : 0);
    const passes = (item: Value) =>
      name === undefined
        ? truthy(get(item))
        : truthy(applyTest(asText(name, 'the name of a test'), budget, get(item), rest, named));
    return new Iterator(iterate(value, budget).filter((item) => passes(item) === wanted));
  };

const variadic: ReadonlyMap<string, Variadic> = new Map<string, Variadic>([
  ['map', map],
  ['select', selection(true, false)],
  ['reject', selection(false, false)],
  ['selectattr', selection(true, true)],
  ['rejectattr', selection(false, true)],
  ['format', (budget, value, positional, named) => formatFilter(budget, value, positional, new Dict(named))],
]);

const isFilter = (name: string): boolean => filters.has(name) || variadic.has(name);
const tests: ReadonlyMap<string, BuiltIn<Value>> = makeTests({ filter: isFilter, test: (name) => tests.has(name) });

/** `value|name(...)`. @throws TemplateError for an unknown filter or wrong arguments */
export function applyFilter(
  name: string,
  budget: Budget,
  value: Value,
  positional: readonly Value[],
  named: Keywords,
): Value {
  budget.step();
  const found = filters.get(name);
  if (found) return call(name, found)(budget, value, positional, named);
  return (variadic.get(name) ?? fail(`No filter named '${name}'.`))(budget, value, positional, named);
}

/** `value is name(...)`. @throws TemplateError for an unknown test or wrong arguments */
export function applyTest(
  name: string,
  budget: Budget,
  value: Value,
  positional: readonly Value[],
  named: Keywords,
): Value {
  budget.step();
  return call(name, tests.get(name) ?? fail(`No test named '${name}'.`))(budget, value, positional, named);
}
