// Expressions to values.
import { getAttribute, getItem, getSlice } from './attributes.js';
import type { Budget } from './budget.js';
import { compare, contains, equals } from './compare.js';
import { fail } from './errors.js';
import { applyFilter, applyTest } from './library.js';
import type { Arguments, CompareOperator, Expression } from './nodes.js';
import { binaryOperation, negate } from './operators.js';
import type { Scope } from './scope.js';
import { append, str } from './text.js';
import {
  asText,
  Callable,
  defined,
  Dict,
  Float,
  iterate,
  Loop,
  Tuple,
  truthy,
  typeName,
  Undefined,
  type Value,
} from './values.js';

type Kind = Expression['kind'];
type OfKind<K extends Kind> = Expression & { kind: K };
type Evaluators = { readonly [K in Kind]: (node: OfKind<K>, scope: Scope) => Value };

const comparisons: Readonly<Record<CompareOperator, (a: Value, b: Value, budget: Budget) => boolean>> = {
  '==': equals,
  '!=': (a, b, budget) => !equals(a, b, budget),
  '<': (a, b, budget) => compare(a, b, budget) < 0,
  '<=': (a, b, budget) => compare(a, b, budget) <= 0,
  '>': (a, b, budget) => compare(a, b, budget) > 0,
  '>=': (a, b, budget) => compare(a, b, budget) >= 0,
  in: (a, b, budget) => contains(b, a, budget),
  'not in': (a, b, budget) => !contains(b, a, budget),
};

/** Evaluates expressions; each costs a step and a level of depth. */
export class Evaluator {
  constructor(private readonly budget: Budget) {}

  evaluate(node: Expression, scope: Scope): Value {
    this.budget.enter();
    // The table's key is the node's kind, which TypeScript cannot follow through the lookup.
    const value = (this.#evaluators[node.kind] as (node: Expression, scope: Scope) => Value)(node, scope);
    this.budget.leave();
    return value;
  }

  readonly #evaluators: Evaluators = {
    constant: (node) => node.value,
    integer: (node) => node.value,
    float: (node) => new Float(node.value),
    name: (node, scope) => scope.get(node.name),
    list: (node, scope) => node.items.map((item) => this.evaluate(item, scope)),
    tuple: (node, scope) => new Tuple(node.items.map((item) => this.evaluate(item, scope))),
    dict: (node, scope) => {
      this.budget.step(6); // a table of its own
      return new Dict(node.entries.map(([key, value]) => [this.#key(key, scope), this.evaluate(value, scope)]));
    },
    attribute: (node, scope) => getAttribute(this.evaluate(node.object, scope), node.name, this.budget),
    item: (node, scope) => this.#item(node, scope),
    slice: () => fail('a slice is only allowed as an index'),
    call: (node, scope) => this.#call(node, scope),
    filter: (node, scope) =>
      this.filter(node, node.object ? this.evaluate(node.object, scope) : fail('a filter of nothing'), scope),
    test: (node, scope) => {
      const { positional, named } = this.args(node.args, scope);
      return applyTest(node.name, this.budget, this.evaluate(node.object, scope), positional, named);
    },
    not: (node, scope) => !truthy(this.evaluate(node.operand, scope)),
    negative: (node, scope) => negate(this.evaluate(node.operand, scope)),
    positive: (node, scope) => negate(negate(this.evaluate(node.operand, scope))),
    binary: (node, scope) =>
      node.rest.reduce(
        (value, [operator, operand]) => binaryOperation(operator, value, this.evaluate(operand, scope), this.budget),
        this.evaluate(node.first, scope),
      ),
    concat: (node, scope) =>
      node.items.reduce((text, item) => append(text, str(this.evaluate(item, scope), this.budget), this.budget), ''),
    compare: (node, scope) => this.#compare(node, scope),
    and: (node, scope) => this.#firstThat(node.items, false, scope),
    or: (node, scope) => this.#firstThat(node.items, true, scope),
    condition: (node, scope) => this.#condition(node, scope),
  };

  #key(node: Expression, scope: Scope): Value {
    const key = this.evaluate(node, scope);
    this.budget.key(key);
    return key;
  }

  #item(node: OfKind<'item'>, scope: Scope): Value {
    const object = this.evaluate(node.object, scope);
    if (node.index.kind !== 'slice') return getItem(object, this.evaluate(node.index, scope), this.budget);
    const bounds = node.index.bounds.map((bound) => bound && this.evaluate(bound, scope));
    return getSlice(object, bounds, this.budget);
  }

  #call(node: OfKind<'call'>, scope: Scope): Value {
    const callee = this.evaluate(node.callee, scope);
    const { positional, named } = this.args(node.args, scope);
    return this.call(callee, positional, named);
  }

  /** @throws TemplateError for what cannot be called */
  call(callee: Value, positional: readonly Value[], named: ReadonlyMap<string, Value>): Value {
    defined(callee);
    if (callee instanceof Loop)
      return callee.recurse ? callee.recurse(positional[0]) : fail("a loop that is called must be 'recursive'");
    return callee instanceof Callable
      ? callee.call(positional, named)
      : fail(`'${typeName(callee)}' object is not callable`);
  }

  /** `value|filter`. */
  filter(node: { name: string; args: Arguments }, value: Value, scope: Scope): Value {
    const { positional, named } = this.args(node.args, scope);
    return applyFilter(node.name, this.budget, value, positional, named);
  }

  args(args: Arguments, scope: Scope): { positional: readonly Value[]; named: Map<string, Value> } {
    const positional = args.positional.map((item) => this.evaluate(item, scope));
    if (args.list) for (const item of iterate(this.evaluate(args.list, scope), this.budget)) positional.push(item);
    const named = new Map(args.named.map(([name, value]) => [name, this.evaluate(value, scope)]));
    if (args.dict) this.#spread(this.evaluate(args.dict, scope), named);
    return { positional, named };
  }

  #spread(dict: Value, named: Map<string, Value>): void {
    if (!(dict instanceof Dict)) return fail('argument after ** must be a mapping');
    this.budget.step(dict.size);
    for (const [key, value] of dict.items()) named.set(asText(key, 'a keyword'), value);
  }

  #compare(node: OfKind<'compare'>, scope: Scope): boolean {
    let left = this.evaluate(node.first, scope);
    for (const [operator, operand] of node.rest) {
      const right = this.evaluate(operand, scope);
      if (!comparisons[operator](left, right, this.budget)) return false;
      left = right;
    }
    return true;
  }

  /** The first value that is true (for `or`) or false (for `and`); else the last. */
  #firstThat(items: readonly Expression[], wanted: boolean, scope: Scope): Value {
    let value: Value = null;
    for (const item of items) {
      value = this.evaluate(item, scope);
      if (truthy(value) === wanted) break;
    }
    return value;
  }

  #condition(node: OfKind<'condition'>, scope: Scope): Value {
    if (truthy(this.evaluate(node.test, scope))) return this.evaluate(node.yes, scope);
    return node.no
      ? this.evaluate(node.no, scope)
      : new Undefined('the inline if-expression evaluated to false and no else section was defined.');
  }
}
