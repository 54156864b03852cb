import type { Budget } from './budget.js';
import { bind, Callable, type Value } from './values.js';

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
