// Statements to text.
import type { Budget } from './budget.js';
import { fail } from './errors.js';
import { Evaluator } from './evaluate.js';
import type { Block, Expression, Filter, ForStatement, Signature, Statement, Target } from './nodes.js';
import { Scope } from './scope.js';
import { append, str } from './text.js';
import {
  asText,
  Callable,
  Dict,
  iterate,
  Loop,
  Namespace,
  Tuple,
  truthy,
  typeName,
  Undefined,
  type Keywords,
  type Value,
} from './values.js';

const notProvided = (name: string): Undefined => new Undefined(`parameter '${name}' was not provided`);

type Kind = Statement['kind'];
type OfKind<K extends Kind> = Statement & { kind: K };
type Renderers = { readonly [K in Kind]: (node: OfKind<K>, scope: Scope) => string };

/** Renders blocks of a template. Variables live in scopes as jinja2's do: loops, macros and the like have their own. */
export class Renderer {
  readonly #evaluator: Evaluator;
  /** A `break` or `continue` on its way out to the loop. */
  #leaving: 'break' | 'continue' | undefined;

  constructor(private readonly budget: Budget) {
    this.#evaluator = new Evaluator(budget);
  }

  block(block: Block, scope: Scope): string {
    this.budget.enter();
    let text = '';
    for (const node of block) {
      this.budget.step();
      const part = (this.#renderers[node.kind] as (node: Statement, scope: Scope) => string)(node, scope);
      text = append(text, part, this.budget);
      if (this.#leaving) break;
    }
    this.budget.leave();
    return text;
  }

  readonly #renderers: Renderers = {
    data: (node) => node.text,
    output: (node, scope) => str(this.#evaluate(node.expression, scope), this.budget),
    if: (node, scope) => {
      const branch = node.branches.find(({ test }) => truthy(this.#evaluate(test, scope)));
      return this.block(branch?.body ?? node.otherwise, scope);
    },
    for: (node, scope) => this.#for(node, scope, this.#evaluate(node.iterable, scope), 0),
    set: (node, scope) => this.#assign(node.target, this.#evaluate(node.value, scope), scope),
    setBlock: (node, scope) => {
      const text = this.block(node.body, new Scope(scope));
      return this.#assign(node.target, node.filter ? this.#filter(node.filter, text, scope) : text, scope);
    },
    macro: (node, scope) => {
      scope.set(node.name, this.#macro(node.name, node.signature, scope));
      return '';
    },
    callBlock: (node, scope) => this.#callBlock(node, scope),
    filterBlock: (node, scope) =>
      asText(this.#filter(node.filter, this.block(node.body, new Scope(scope)), scope), 'what a filter block gives'),
    with: (node, scope) => {
      const inner = new Scope(scope);
      for (const [target, value] of node.assignments) this.#assign(target, this.#evaluate(value, scope), inner);
      return this.block(node.body, inner);
    },
    break: () => this.#leave('break'),
    continue: () => this.#leave('continue'),
  };

  #leave(how: 'break' | 'continue'): string {
    this.#leaving = how;
    return '';
  }

  #evaluate(expression: Expression, scope: Scope): Value {
    return this.#evaluator.evaluate(expression, scope);
  }

  /** The filters behind each other, around a block's text. */
  #filter(filter: Filter, text: string, scope: Scope): Value {
    const inner = filter.object?.kind === 'filter' ? this.#filter(filter.object, text, scope) : text;
    return this.#evaluator.filter(filter, inner, scope);
  }

  #assign(target: Target, value: Value, scope: Scope): string {
    if (target.kind === 'name') scope.set(target.name, value);
    else if (target.kind === 'attribute') {
      const object = scope.get(target.object);
      if (!(object instanceof Namespace)) return fail('cannot assign attribute on non-namespace object');
      object.attributes.set(target.name, value);
    } else this.#unpack(target.items, value, scope);
    return '';
  }

  #unpack(targets: readonly Target[], value: Value, scope: Scope): void {
    const items = iterate(value, this.budget);
    if (items.length !== targets.length)
      fail(`cannot unpack ${items.length} values into ${targets.length} of '${typeName(value)}'`);
    targets.forEach((target, i) => this.#assign(target, items[i], scope));
  }

  #for(node: ForStatement, scope: Scope, iterable: Value, depth: number): string {
    const items = this.#selected(node, scope, iterable);
    const recurse = node.recursive ? (inner: Value) => this.#for(node, scope, inner, depth + 1) : undefined;
    const loop = new Loop(items, depth, recurse);
    let text = '';
    let finished = false;
    for (const item of items) {
      this.budget.step();
      loop.index0++;
      const turn = new Scope(scope);
      turn.set('loop', loop);
      this.#assign(node.target, item, turn);
      text = append(text, this.block(node.body, turn), this.budget);
      const how = this.#leaving;
      this.#leaving = undefined;
      finished ||= how === undefined;
      if (how === 'break') break;
    }
    // As jinja2: a loop that never got to the end of its body has its `else`.
    return finished ? text : append(text, this.block(node.otherwise, new Scope(scope)), this.budget);
  }

  /** The items that pass the loop's `if`. */
  #selected({ target, test }: ForStatement, scope: Scope, iterable: Value): readonly Value[] {
    const items = iterate(iterable, this.budget);
    if (!test) return items;
    return items.filter((item) => {
      const inner = new Scope(scope);
      this.#assign(target, item, inner);
      return truthy(this.#evaluate(test, inner));
    });
  }

  #macro(name: string, signature: Signature, scope: Scope): Callable {
    this.budget.step(signature.parameters.length);
    const names = signature.parameters.map((parameter) => parameter.name);
    const attributes = new Map<string, Value>([
      ['name', name],
      ['arguments', new Tuple(names)],
    ]);
    const call = (positional: readonly Value[], named: Keywords) =>
      this.block(signature.body, this.#arguments(name, signature, positional, named, new Scope(scope)));
    return new Callable(name, call, attributes);
  }

  /** The scope of a macro's body with its parameters. @throws TemplateError for arguments that it does not take */
  #arguments(
    name: string,
    { parameters, special }: Signature,
    positional: readonly Value[],
    named: Keywords,
    scope: Scope,
  ): Scope {
    this.budget.step(2 * parameters.length + positional.length + named.size);
    const rest = new Map(named);
    const caller = rest.get('caller');
    if (special.has('caller')) rest.delete('caller');
    const missing: { name: string; default?: Expression }[] = [];
    parameters.forEach((parameter, i) => {
      const value = i < positional.length ? positional[i] : rest.get(parameter.name);
      if (i >= positional.length) rest.delete(parameter.name);
      if (value === undefined) missing.push(parameter);
      else scope.set(parameter.name, value);
    });
    for (const parameter of missing) {
      const value = parameter.default && this.#evaluate(parameter.default, scope);
      scope.set(parameter.name, value === undefined ? notProvided(parameter.name) : value);
    }
    if (special.has('caller')) scope.set('caller', caller ?? new Undefined('No caller defined'));
    if (special.has('kwargs')) scope.set('kwargs', new Dict(rest));
    else if (rest.size > 0) fail(`macro '${name}' takes no keyword argument '${[...rest.keys()][0].slice(0, 100)}'`);
    if (special.has('varargs')) scope.set('varargs', new Tuple(positional.slice(parameters.length)));
    else if (positional.length > parameters.length)
      fail(`macro '${name}' takes not more than ${parameters.length} argument(s)`);
    return scope;
  }

  #callBlock({ call, signature }: OfKind<'callBlock'>, scope: Scope): string {
    const caller = this.#macro('caller', signature, scope);
    const callee = this.#evaluate(call.callee, scope);
    const { positional, named } = this.#evaluator.args(call.args, scope);
    return str(this.#evaluator.call(callee, positional, new Map([...named, ['caller', caller]])), this.budget);
  }
}
