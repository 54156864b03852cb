// Statements, by the grammar of jinja2's parser.py with its loop controls and transformers' `{% generation %}`.
import type { Block, Expression, Filter, ForStatement, Signature, Statement, Target } from './nodes.js';
import { parseExpression, parseFilter, parsePrimary, parseTuple, parseWithoutCondition } from './parse-expression.js';
import { TokenStream } from './token-stream.js';

const SPECIAL = ['caller', 'varargs', 'kwargs'];

/** @param source the template's text @throws TemplateError, LimitError */
export const parse = (source: string): Block => new Parser(new TokenStream(source)).template();

class Parser {
  /** Loops around the current place, in the same macro. */
  #loops = 0;

  constructor(private readonly stream: TokenStream) {}

  template(): Block {
    const block = this.#body([]);
    if (!this.stream.is('end')) this.stream.fail(`unexpected ${this.stream.describe()}`);
    return block;
  }

  /** Statements up to a tag with one of these names, of which the name is the current token. */
  #body(ends: readonly string[]): Block {
    return this.stream.nested(() => {
      const block: Statement[] = [];
      while (!this.stream.is('end')) {
        const { type, value } = this.stream.next();
        if (type === 'data') block.push({ kind: 'data', text: value });
        else if (type === 'variableBegin') {
          block.push({ kind: 'output', expression: parseTuple(this.stream) });
          this.stream.expect('variableEnd');
        } else {
          if (this.stream.isName(...ends)) return block;
          block.push(...this.#statement());
          this.stream.expect('blockEnd');
        }
      }
      if (ends.length > 0) this.stream.fail(`Unexpected end of template, looking for ${ends.join(' or ')}`);
      return block;
    });
  }

  /** The block behind a tag, up to its end tag. */
  #bodyTo(end: string): Block {
    this.stream.expect('blockEnd');
    const body = this.#body([end]);
    this.stream.next();
    return body;
  }

  readonly #statements: Readonly<Record<string, () => Statement | readonly Statement[]>> = {
    if: () => this.#if(),
    for: () => this.#for(),
    set: () => this.#set(),
    macro: () => ({ kind: 'macro', name: this.stream.expect('name').value, signature: this.#signature('endmacro') }),
    call: () => this.#call(),
    filter: () => ({ kind: 'filterBlock', filter: this.#filters(undefined), body: this.#bodyTo('endfilter') }),
    with: () => this.#with(),
    generation: () => ({ kind: 'with', assignments: [], body: this.#bodyTo('endgeneration') }),
    block: () => this.#block(),
    print: () => this.#print(),
    break: () => this.#loopControl('break'),
    continue: () => this.#loopControl('continue'),
  };

  #statement(): readonly Statement[] {
    const { value } = this.stream.expect('name');
    if (['extends', 'include', 'import', 'from'].includes(value))
      this.stream.fail(`{% ${value} %} needs other files, which a chat template does not have`);
    if (!Object.hasOwn(this.#statements, value)) this.stream.fail(`Encountered unknown tag '${value}'`);
    return [this.#statements[value]()].flat();
  }

  #if(): Statement {
    const branches: { test: Expression; body: Block }[] = [];
    for (;;) {
      const test = parseTuple(this.stream, parseWithoutCondition);
      this.stream.expect('blockEnd');
      branches.push({ test, body: this.#body(['elif', 'else', 'endif']) });
      const { value } = this.stream.next();
      if (value === 'elif') continue;
      return { kind: 'if', branches, otherwise: value === 'else' ? this.#bodyTo('endif') : [] };
    }
  }

  #for(): ForStatement {
    const target = this.#target('in');
    this.stream.expect('name', 'in');
    const iterable = parseTuple(this.stream, parseWithoutCondition, { end: 'recursive' });
    const test = this.stream.skip('name', 'if') ? parseExpression(this.stream) : undefined;
    const recursive = this.stream.skip('name', 'recursive');
    this.stream.expect('blockEnd');
    this.#loops++;
    const body = this.#body(['endfor', 'else']);
    this.#loops--;
    const otherwise = this.stream.next().value === 'else' ? this.#bodyTo('endfor') : [];
    return { kind: 'for', target, iterable, test, recursive, body, otherwise };
  }

  /** A name, `namespace.name`, or several. @param end name that ends it */
  #target(end?: string): Target {
    return this.#asTarget(parseTuple(this.stream, (stream) => this.#targetItem(stream), { end }));
  }

  #targetItem(stream: TokenStream): Expression {
    const item = parsePrimary(stream);
    if (item.kind !== 'name' || !stream.skip('operator', '.')) return item;
    return { kind: 'attribute', object: item, name: stream.expect('name').value };
  }

  #asTarget(expression: Expression): Target {
    const { kind } = expression;
    if (kind === 'name') return { kind, name: expression.name };
    if (kind === 'attribute' && expression.object.kind === 'name')
      return { kind, object: expression.object.name, name: expression.name };
    if (kind === 'tuple' || kind === 'list')
      return { kind: 'tuple', items: expression.items.map((item) => this.#asTarget(item)) };
    return this.stream.fail(`can't assign to '${kind}'`);
  }

  #set(): Statement {
    const target = this.#target();
    if (this.stream.skip('operator', '=')) return { kind: 'set', target, value: parseTuple(this.stream) };
    const filter = this.stream.skip('operator', '|') ? this.#filters(undefined) : undefined;
    return { kind: 'setBlock', target, filter, body: this.#bodyTo('endset') };
  }

  /** `a|b|c`, from behind the first bar. */
  #filters(object: Expression | undefined): Filter {
    let filter = parseFilter(this.stream, object);
    while (this.stream.skip('operator', '|')) filter = parseFilter(this.stream, filter);
    return filter;
  }

  /** Parameters, if there are any, and the body of something that is called. */
  #signature(end: string, between: () => void = () => {}): Signature {
    const parameters: { name: string; default?: Expression }[] = [];
    if (end === 'endmacro' || this.stream.isOperator('(')) this.#parameters(parameters);
    between();
    const loops = this.#loops;
    this.#loops = 0;
    const { result: body, names } = this.stream.withNames(() => this.#bodyTo(end));
    this.#loops = loops;
    return { parameters, body, special: new Set(SPECIAL.filter((name) => names.has(name))) };
  }

  #parameters(parameters: { name: string; default?: Expression }[]): void {
    this.stream.expect('operator', '(');
    while (!this.stream.isOperator(')')) {
      if (parameters.length > 0) this.stream.expect('operator', ',');
      const name = this.stream.expect('name').value;
      if (this.stream.skip('operator', '=')) parameters.push({ name, default: parseExpression(this.stream) });
      else if (parameters.at(-1)?.default) this.stream.fail('non-default argument follows default argument');
      else parameters.push({ name });
    }
    this.stream.next();
  }

  #call(): Statement {
    let call: Expression | undefined;
    const signature = this.#signature('endcall', () => (call = parseExpression(this.stream)));
    if (call?.kind !== 'call') return this.stream.fail('expected call');
    return { kind: 'callBlock', call, signature };
  }

  #with(): Statement {
    const assignments: [Target, Expression][] = [];
    while (!this.stream.is('blockEnd')) {
      if (assignments.length > 0) this.stream.expect('operator', ',');
      const target = this.#asTarget(parsePrimary(this.stream));
      this.stream.expect('operator', '=');
      assignments.push([target, parseExpression(this.stream)]);
    }
    return { kind: 'with', assignments, body: this.#bodyTo('endwith') };
  }

  /** Without inheritance a block is what it holds. */
  #block(): Statement {
    const { value } = this.stream.expect('name');
    this.stream.skip('name', 'scoped');
    const body = this.#bodyTo('endblock');
    this.stream.skip('name', value);
    return { kind: 'with', assignments: [], body };
  }

  #print(): readonly Statement[] {
    const outputs: Statement[] = [];
    while (!this.stream.is('blockEnd')) {
      if (outputs.length > 0) this.stream.expect('operator', ',');
      outputs.push({ kind: 'output', expression: parseExpression(this.stream) });
    }
    return outputs;
  }

  #loopControl(kind: 'break' | 'continue'): Statement {
    if (this.#loops === 0) this.stream.fail(`'${kind}' outside loop`);
    return { kind };
  }
}
