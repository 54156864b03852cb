// The tree of a template: jinja2's nodes.py, without what no chat template has (inheritance, imports).

export type BinaryOperator = '+' | '-' | '*' | '/' | '//' | '%' | '**';
export type CompareOperator = '==' | '!=' | '<' | '<=' | '>' | '>=' | 'in' | 'not in';

export interface Arguments {
  readonly positional: readonly Expression[];
  readonly named: readonly (readonly [string, Expression])[];
  /** `*list` and `**dict`. */
  readonly list?: Expression;
  readonly dict?: Expression;
}

export type Expression =
  | { readonly kind: 'constant'; readonly value: string | number | boolean | null }
  | { readonly kind: 'integer'; readonly value: bigint }
  | { readonly kind: 'float'; readonly value: number }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'list' | 'tuple'; readonly items: readonly Expression[] }
  | { readonly kind: 'dict'; readonly entries: readonly (readonly [Expression, Expression])[] }
  | { readonly kind: 'attribute'; readonly object: Expression; readonly name: string }
  | { readonly kind: 'item'; readonly object: Expression; readonly index: Expression }
  | { readonly kind: 'slice'; readonly bounds: readonly (Expression | undefined)[] }
  | { readonly kind: 'call'; readonly callee: Expression; readonly args: Arguments }
  | Filter
  | { readonly kind: 'test'; readonly object: Expression; readonly name: string; readonly args: Arguments }
  | { readonly kind: 'not' | 'negative' | 'positive'; readonly operand: Expression }
  | {
      readonly kind: 'binary';
      readonly first: Expression;
      readonly rest: readonly (readonly [BinaryOperator, Expression])[];
    }
  | {
      readonly kind: 'compare';
      readonly first: Expression;
      readonly rest: readonly (readonly [CompareOperator, Expression])[];
    }
  | { readonly kind: 'concat' | 'and' | 'or'; readonly items: readonly Expression[] }
  | { readonly kind: 'condition'; readonly test: Expression; readonly yes: Expression; readonly no?: Expression };

export interface Filter {
  readonly kind: 'filter';
  /** Undefined: the text of a block. */
  readonly object?: Expression;
  readonly name: string;
  readonly args: Arguments;
}

export type Target =
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'attribute'; readonly object: string; readonly name: string }
  | { readonly kind: 'tuple'; readonly items: readonly Target[] };

/** Parameters and body of a macro, a call block or a `{% generation %}` block. */
export interface Signature {
  readonly parameters: readonly { readonly name: string; readonly default?: Expression }[];
  readonly body: Block;
  /** Which of `caller`, `varargs` and `kwargs` the body reads. */
  readonly special: ReadonlySet<string>;
}

export type Block = readonly Statement[];

export type Statement =
  | { readonly kind: 'data'; readonly text: string }
  | { readonly kind: 'output'; readonly expression: Expression }
  | {
      readonly kind: 'if';
      readonly branches: readonly { readonly test: Expression; readonly body: Block }[];
      readonly otherwise: Block;
    }
  | ForStatement
  | { readonly kind: 'set'; readonly target: Target; readonly value: Expression }
  | { readonly kind: 'setBlock'; readonly target: Target; readonly filter?: Filter; readonly body: Block }
  | { readonly kind: 'macro'; readonly name: string; readonly signature: Signature }
  | { readonly kind: 'callBlock'; readonly call: Expression & { kind: 'call' }; readonly signature: Signature }
  | { readonly kind: 'filterBlock'; readonly filter: Filter; readonly body: Block }
  | { readonly kind: 'with'; readonly assignments: readonly (readonly [Target, Expression])[]; readonly body: Block }
  | { readonly kind: 'break' | 'continue' };

export interface ForStatement {
  readonly kind: 'for';
  readonly target: Target;
  readonly iterable: Expression;
  readonly test?: Expression;
  readonly recursive: boolean;
  readonly body: Block;
  readonly otherwise: Block;
}
