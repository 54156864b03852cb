// The functions that a template can call: jinja2's, and transformers' raise_exception and strftime_now.
import type { Budget } from './budget.js';
import { fail, RaisedError } from './errors.js';
import { strftime } from './strftime.js';
import { str } from './text.js';
import { asIndex, asText, Callable, Dict, iterate, Namespace, Range, type Keywords, type Value } from './values.js';

function range(budget: Budget, positional: readonly Value[]): Range {
  const bounds = positional.map((bound) => asIndex(bound, 'an argument of range()'));
  if (bounds.length < 1 || bounds.length > 3) fail('range() takes one to three arguments');
  const [start, stop, step = 1] = bounds.length === 1 ? [0, bounds[0]] : bounds;
  if (step === 0) fail('range() arg 3 must not be zero');
  const made = new Range(start, stop, step);
  budget.range(made.length);
  return made;
}

/** dict(...): of a dict or pairs, and of keywords. */
function dict(budget: Budget, positional: readonly Value[], named: Keywords): Dict {
  const [source = new Dict()] = positional;
  const pairs = source instanceof Dict ? source.items() : iterate(source, budget).map((pair) => iterate(pair, budget));
  budget.step(pairs.length + named.size);
  for (const pair of pairs) {
    if (pair.length !== 2) fail('dict() takes pairs');
    budget.key(pair[0]);
  }
  return new Dict([...pairs.map(([key, value]) => [key, value] as const), ...named]);
}

function namespace(budget: Budget, positional: readonly Value[], named: Keywords): Namespace {
  const made = new Namespace();
  for (const [key, value] of dict(budget, positional, named).items()) made.attributes.set(asText(key, 'a name'), value);
  return made;
}

function cycler(items: readonly Value[]): Namespace {
  if (items.length === 0) fail('at least one item has to be provided');
  const made = new Namespace();
  let at = 0;
  const show = (): Value => {
    made.attributes.set('current', items[at]);
    return items[at];
  };
  const next = () => {
    const item = items[at];
    at = (at + 1) % items.length;
    show();
    return item;
  };
  made.attributes.set('next', new Callable('next', next));
  made.attributes.set('reset', new Callable('reset', () => ((at = 0), show(), null)));
  show();
  return made;
}

/** Nothing the first time it is called, then the separator. */
function joiner([separator = ', ']: readonly Value[]): Callable {
  let used = false;
  return new Callable('joiner', () => {
    const text = used ? separator : '';
    used = true;
    return text;
  });
}

/** @param now the time that `strftime_now` tells */
export function makeGlobals(budget: Budget, now: () => Date): ReadonlyMap<string, Value> {
  const functions: Readonly<Record<string, Callable['call']>> = {
    range: (positional) => range(budget, positional),
    dict: (positional, named) => dict(budget, positional, named),
    namespace: (positional, named) => namespace(budget, positional, named),
    cycler: (positional) => cycler(positional),
    joiner: (positional) => joiner(positional),
    raise_exception: ([message = '']) => {
      throw new RaisedError(str(message, budget).slice(0, 2000));
    },
    strftime_now: ([format = '']) => strftime(now(), asText(format, 'the format'), budget),
  };
  return new Map(Object.entries(functions).map(([name, run]) => [name, new Callable(name, run)]));
}
