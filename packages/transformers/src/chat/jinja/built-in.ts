import type { Budget } from './budget.js';
import { fail } from './errors.js';
import { Callable, type Keywords, type Value } from './values.js';

/** A method, filter or test: the names of its parameters, how many of them must be there, and what it does. */
export interface BuiltIn<T> {
  readonly parameters: readonly string[];
  readonly required?: number;
  readonly run: (budget: Budget, self: T, ...args: (Value | undefined)[]) => Value;
}

/** A method as a value that can be called. */
export function boundMethod<T>(name: string, builtIn: BuiltIn<T>, self: T, budget: Budget): Callable {
  const { parameters, required = 0, run } = builtIn;
  return new Callable(name, (positional, named) =>
    run(budget, self, ...bind(name, parameters, required, positional, named)),
  );
}

/** The arguments of a call by the names of the parameters. @throws TemplateError as Python for wrong ones. */
export function bind(
  name: string,
  parameters: readonly string[],
  required: number,
  positional: readonly Value[],
  named: Keywords,
): (Value | undefined)[] {
  if (positional.length > parameters.length)
    fail(`${name}() takes at most ${parameters.length} arguments (${positional.length} given)`);
  const values: (Value | undefined)[] = parameters.map((_, i) => positional[i]);
  for (const [key, value] of named) {
    const at = parameters.indexOf(key);
    if (at < 0) fail(`${name}() got an unexpected keyword argument '${key}'`);
    if (values[at] !== undefined) fail(`${name}() got multiple values for argument '${key}'`);
    values[at] = value;
  }
  const missing = parameters.findIndex((_, i) => i < required && values[i] === undefined);
  if (missing >= 0) fail(`${name}() missing required argument '${parameters[missing]}'`);
  return values;
}
