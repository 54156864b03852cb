import { Undefined, type Value } from './values.js';

/** Variables of a template, a loop's turn, a macro's call; looked up outwards, set in the innermost. */
export class Scope {
  readonly #variables = new Map<string, Value>();

  constructor(private readonly outer?: Scope) {}

  get(name: string): Value {
    const value = this.#variables.get(name);
    if (value !== undefined) return value;
    return this.outer ? this.outer.get(name) : new Undefined(`'${name.slice(0, 100)}' is undefined`);
  }

  set(name: string, value: Value): void {
    this.#variables.set(name, value);
  }
}
