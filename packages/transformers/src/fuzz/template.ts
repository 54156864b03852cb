// Random chat templates: by grammar, so that most of them parse and reach every construct, and then damaged or made
// costly. What comes of one is a prompt or a ConfigError, in bounded time; anything else is a fault.
import { ConfigError } from '@q/config';
import { ChatTemplates } from '../chat/apply.js';
import type { ChatTemplateOptions } from '../chat/options.js';

/** From 0 up to, without, 1; inputs follow from it alone. */
export type RandomSource = () => number;

const names = 'messages tools x y z ns loop m bos_token caller varargs kwargs f g missing'.split(' ');
const attributes =
  'role content items keys values get x name index index0 first last length previtem nextitem upper lower strip lstrip rstrip split rsplit replace startswith endswith join format title find count constructor __proto__ prototype __class__ toString append'.split(
    ' ',
  );
const filters =
  'upper lower title capitalize trim length count first last list join sort unique sum max min reverse string tojson int float abs round default(0) d("x",true) indent indent(2,true) replace("a","b") map("upper") map(attribute="role") select select("defined") reject("none") selectattr("role") selectattr("role","eq","user") rejectattr("x") groupby("role") batch(2) slice(2) items dictsort escape safe striptags urlencode wordcount truncate(5) center(9) format(1) attr("upper") filesizeformat tojson(indent=2) sort(reverse=true) join(",") nofilter'.split(
    ' ',
  );
const tests =
  'defined undefined none string number integer float boolean mapping sequence iterable callable odd even true false in([1]) eq(1) lt(2) sameas(1) divisibleby(2) upper lower escaped filter test notest'.split(
    ' ',
  );
const literals = [
  '0',
  '1',
  '-1',
  '2.5',
  '1e3',
  '7',
  '100000',
  '1000000000',
  '12345678901234567890',
  "''",
  "'a'",
  "'Ab cD'",
  "'x,y,,z'",
  "' pad\\n'",
  "'é😀'",
  "'%s'",
  "'{}'",
  'none',
  'true',
  'false',
  '[]',
  '{}',
  '()',
];
const calls = [
  'range(3)',
  'range(5, 0, -2)',
  'range(1000000)',
  'namespace(x=1)',
  'dict(a=1)',
  'joiner()',
  "cycler('a', 'b')",
  "strftime_now('%Y')",
  "raise_exception('no')",
  'f(1)',
  'g()',
];

class Generator {
  #depth = 0;

  constructor(private readonly random: RandomSource) {}

  int(low: number, high: number): number {
    return low + Math.floor(this.random() * (high - low + 1));
  }

  pick<T>(list: readonly T[]): T {
    return list[this.int(0, list.length - 1)];
  }

  /** One of several productions; at the bottom the first, which nests nothing. */
  #choose(productions: readonly (() => string)[]): string {
    this.#depth++;
    const text = this.#depth > 6 ? productions[0]() : this.pick(productions)();
    this.#depth--;
    return text;
  }

  expression(): string {
    const e = () => this.expression();
    return this.#choose([
      () => this.pick(literals),
      () => this.pick(names),
      () => this.pick(literals),
      () => this.pick(names),
      () => this.pick(calls),
      () => `${e()}.${this.pick(attributes)}`,
      () => `${e()}.${this.pick(attributes)}(${this.int(0, 1) ? e() : ''})`,
      () => `${e()}[${e()}]`,
      () => `${e()}[${this.pick(['1:', ':-1', '::-1', '0:2', ':', '::2', '::0', '-3:'])}]`,
      () => `${e()}|${this.pick(filters)}`,
      () => `${e()}|${this.pick(filters)}|${this.pick(filters)}`,
      () => `(${e()} is ${this.pick(['', 'not '])}${this.pick(tests)})`,
      () => `(${e()} ${this.pick('+ - * / // % ** ~'.split(' '))} ${e()})`,
      () => `(${e()} ${this.pick(['==', '!=', '<', '<=', '>', '>=', 'in', 'not in'])} ${e()})`,
      () => `(${e()} ${this.pick(['and', 'or'])} ${e()})`,
      () => `(not ${e()})`,
      () => `-${e()}`,
      () => `(${e()} if ${e()}${this.int(0, 3) ? ` else ${e()}` : ''})`,
      () => `[${e()}, ${e()}]`,
      () => `(${e()}, ${e()})`,
      () => `{'x': ${e()}, ${this.pick(literals.slice(0, 10))}: ${e()}}`,
    ]);
  }

  /** A tag, with white space control now and then. */
  #tag(inside: string): string {
    return `{%${this.pick(['', '-', '', '+'])} ${inside} ${this.pick(['', '-', '', '+'])}%}`;
  }

  statement(): string {
    const e = () => this.expression();
    const block = () => this.block();
    const tag = (inside: string) => this.#tag(inside);
    return this.#choose([
      () => `{{ ${e()} }}`,
      () => `{{${this.pick(['', '-'])} ${e()} ${this.pick(['', '-'])}}}`,
      () => this.pick([' ', '\n', 'text', '\r\n  ', '  \n\t', '{', '%}', '😀']),
      () => `{#${this.pick(['', '-'])} comment ${this.pick(['', '-'])}#}`,
      () => `${tag(`if ${e()}`)}${block()}${this.int(0, 1) ? tag('else') + block() : ''}${tag('endif')}`,
      () => `${tag(`if ${e()}`)}${block()}${tag(`elif ${e()}`)}${block()}${tag('endif')}`,
      () => `${tag(`for m in ${e()}`)}${block()}${tag('endfor')}`,
      () => `${tag(`for m in ${e()} if ${e()}`)}${block()}${tag('else')}${block()}${tag('endfor')}`,
      () => `${tag(`for x, y in ${e()}`)}${block()}${tag('endfor')}`,
      () =>
        `${tag(`for m in messages`)}${tag(`if ${e()}`)}${tag(this.pick(['break', 'continue']))}${tag('endif')}${block()}${tag('endfor')}`,
      () => tag(`set ${this.pick(['x', 'y', 'x, y', 'ns', 'ns.x'])} = ${e()}`),
      () => `${tag(`set x${this.pick(['', ' | upper'])}`)}${block()}${tag('endset')}`,
      () => `${tag(`macro ${this.pick(['f', 'g'])}(x=1, y=${this.pick(literals)})`)}${block()}${tag('endmacro')}`,
      () => `${tag('call f()')}${block()}${tag('endcall')}`,
      () => `${tag(`filter ${this.pick(filters)}`)}${block()}${tag('endfilter')}`,
      () => `${tag(`with z = ${e()}`)}${block()}${tag('endwith')}`,
      () => `${tag('generation')}${block()}${tag('endgeneration')}`,
      () => `${tag('raw')}{{ ${this.pick(names)} }}${tag('endraw')}`,
    ]);
  }

  block(): string {
    return Array.from({ length: this.int(0, 3) }, () => this.statement()).join('');
  }

  template(): string {
    const start = this.int(0, 2) === 0 ? "{% set ns = namespace(x='ab') %}" : '';
    return start + Array.from({ length: this.int(1, 5) }, () => this.statement()).join('');
  }
}

const bombs = [
  (inner: string) => `{% for i in range(100000) %}{% for j in range(100000) %}${inner}{% endfor %}{% endfor %}`,
  (inner: string) => `{% macro f(x=1, y=2) %}${inner}{{ f(x) }}{{ f(y) }}{% endmacro %}{{ f() }}`,
  (inner: string) =>
    `{% set ns = namespace(x='ab') %}{% for i in range(64) %}{% set ns.x = ns.x ~ ns.x %}${inner}{% endfor %}{{ ns.x }}`,
  (inner: string) =>
    `{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}${inner}{{ ns.x }}`,
  (inner: string) => `${'{% if true %}'.repeat(500)}${inner}${'{% endif %}'.repeat(500)}`,
  (inner: string) => `{{ ${'('.repeat(3000)}1${')'.repeat(3000)} }}${inner}`,
  (inner: string) => `{{ 'a' * 1000000000 }}${inner}`,
  (inner: string) => `{{ ('ab' * 1000000).replace('a', 'b' * 1000000) }}${inner}`,
  (inner: string) => `{{ 9 ** 9 ** 9 ** 9 }}${inner}`,
];

/** Cuts, doubles, or exchanges a piece of a text. */
function damage(text: string, generator: Generator): string {
  const at = generator.int(0, text.length);
  const end = Math.min(text.length, at + generator.int(0, 12));
  const piece = generator.pick([
    '',
    text.slice(at, end).repeat(2),
    '{%',
    '%}',
    '{{',
    '}}',
    '(',
    ')',
    '|',
    '.',
    '"',
    '\\',
  ]);
  return text.slice(0, at) + piece + text.slice(end);
}

/** A template by grammar; about one in four is damaged, one in twenty a bomb. */
export function randomTemplate(random: RandomSource): string {
  const generator = new Generator(random);
  const template = generator.template();
  const kind = generator.int(0, 99);
  if (kind < 5) return generator.pick(bombs)(template);
  return kind < 30 ? damage(template, generator) : template;
}

const messages = [
  { role: 'system', content: 'Be short.' },
  { role: 'user', content: 'Hello "you"\n<|end|>', x: [1, 2.5, null] },
  { role: 'assistant', content: null, tool_calls: [{ function: { name: 'f', arguments: { a: 1 } } }] },
];

/** Limits low enough that a costly template ends in a fraction of a second. */
const templateLimits = { steps: 300_000, length: 2 ** 20 };

/** What must not change, whatever a template does. */
const shared = [Object.prototype, Array.prototype, Function.prototype, String.prototype, Map.prototype];
const footprint = (): string =>
  shared.map((object) => Reflect.ownKeys(object).map(String).join()).join('|') + JSON.stringify(messages);

/**
 * Renders one random template.
 * @throws Error naming the template when it fails in another way than by ConfigError, or changes what it was given
 */
export function fuzzTemplate(random: RandomSource): Promise<void> {
  return new Promise((resolve) => {
    const chatTemplate = randomTemplate(random);
    const options: ChatTemplateOptions = { chatTemplate: `${chatTemplate} `, templateLimits };
    const before = footprint();
    try {
      new ChatTemplates().render(
        'fuzz',
        { chatTemplate: undefined, specialTokens: { bos_token: '<s>' } },
        [messages],
        options,
      );
    } catch (cause) {
      if (!(cause instanceof ConfigError))
        throw new Error(`not a ConfigError for ${JSON.stringify(chatTemplate)}`, { cause });
    }
    if (footprint() !== before) throw new Error(`something changed by ${JSON.stringify(chatTemplate)}`);
    resolve();
  });
}
