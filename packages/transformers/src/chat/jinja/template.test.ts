import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { TEMPLATE_LIMITS } from '../../limits.js';
import { TemplateError } from './errors.js';
import { Template } from './template.js';

// Made by fixtures/chat/make.py with jinja2 3.1.6 as transformers 5.17.0 sets it up.
const { variables, snippets } = JSON.parse(
  readFileSync(new URL('../../../fixtures/chat/snippets.json', import.meta.url), 'utf8'),
) as { variables: Record<string, unknown>; snippets: { template: string; expected: string | { error: string } }[] };

const render = (template: string, values: Record<string, unknown> = variables) =>
  new Template(template, TEMPLATE_LIMITS).render(values, TEMPLATE_LIMITS);

describe('templates render as jinja2 does', () => {
  it.each(snippets)('$template', ({ template, expected }) => {
    if (typeof expected === 'string') expect(render(template)).toBe(expected);
    else expect(() => render(template)).toThrow(TemplateError);
  });
});

describe('a template cannot do more than its limits', () => {
  const doubled = (times: number, start = 'ab') =>
    `{% set ns = namespace(x='${start}') %}{% for i in range(${times}) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}`;

  it.each([
    ['loops in loops', '{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}', 'steps'],
    ['a range', '{% for i in range(200000) %}{% endfor %}', 'range'],
    ['a text times a number', "{{ 'ab' * 500000000 }}", 'length'],
    ['texts that double', `${doubled(64)}{{ ns.x }}`, 'length'],
    ['replacing', "{{ ('a' * 100000).replace('a', 'b' * 100000) }}", 'length'],
    ['joining', "{{ range(90000) | join('x' * 90000) }}", 'length'],
    ['padding', "{{ 'a'.ljust(10 ** 9) }}", 'length'],
    ['indenting', "{{ 'a\nb' | indent(10 ** 9) }}", 'length'],
    ['lists that double', '{{ [1, 2] * 10 ** 9 }}', 'steps'],
    [
      'indentation of deep lists',
      "{% set ns = namespace(x=1) %}{% for i in range(90) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson(indent='a' * 9000000) }}",
      'length',
    ],
    ['filters of filters', "{{ ['a'] | map(*(['map'] * 90000)) | list }}", 'steps'],
    ['many attributes', "{{ [1, 2] | sort(attribute=',' * 16000000) }}", 'steps'],
    ['parts of an attribute', "{{ [1, 2] | map(attribute='.' * 16000000) | list }}", 'steps'],
    [
      'a list of itself twice',
      '{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}',
      'steps',
    ],
    [
      'comparing such',
      '{% set ns = namespace(x=1, y=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}',
      'steps',
    ],
    ['calls of itself', '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', undefined],
    ['a value in itself', '{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x }}', undefined],
    ['powers', '{{ 7 ** (7 ** 7) }}', undefined],
    ['brackets', `{{ ${'['.repeat(5000)}${']'.repeat(5000)} }}`, undefined],
    ['blocks', `${'{% if 1 %}'.repeat(5000)}`, undefined],
    ['attributes', `{{ x${'[0]'.repeat(5000)} }}`, undefined],
    ['its own size', ' '.repeat(300_000), 'size'],
  ])('%s', (_, template, limit) => {
    expect(() => render(template, { x: [] })).toThrow(expect.objectContaining({ name: 'Error', limit }));
  });

  it('gives what Python gives for absurd counts', () => {
    expect(render("{{ [] * 4000000000 }}{{ () * (2 ** 53 - 1) }}{{ '' * (2 ** 53 - 1) }}")).toBe('[]()');
    expect(() => render("{{ '%c' % -1 }}")).toThrow(TemplateError);
    expect(render("{{ '11' | int(7, 2 ** 53 - 1) }}{{ '11' | int(7, -2) }}{{ '11' | int(7, 36) }}")).toBe('111137');
  });

  it('finds long texts in time linear in both', () => {
    const haystack = `${doubled(20, 'a')}{{ ('b' ~ ns.x[:500000]) in ns.x }}`;
    expect(render(haystack)).toBe('False');
  });

  it('can be given more', () => {
    const template = new Template('{{ range(200000) | length }}', TEMPLATE_LIMITS);
    expect(template.render({}, { ...TEMPLATE_LIMITS, range: 300_000 })).toBe('200000');
  });

  it('has room for a long conversation', () => {
    const messages = Array.from({ length: 3000 }, (_, i) => ({
      role: i % 2 ? 'assistant' : 'user',
      content: ` ${i} `.repeat(40),
    }));
    const template =
      "{% set ns = namespace(out='') %}{% for m in messages %}{% set ns.out = ns.out ~ m.role ~ m.content.strip().replace('1', 'one') | trim %}{% endfor %}{{ ns.out | length }}";
    expect(Number(render(template, { messages }))).toBeGreaterThan(400_000);
  });
});

describe('a template reaches nothing of JavaScript', () => {
  it.each([
    '{{ messages.constructor }}{{ messages.__proto__ }}{{ messages[0].constructor }}{{ messages[0].__proto__ }}',
    "{{ ''.constructor }}{{ ''['constructor'] }}{{ range.constructor }}{{ range['prototype'] }}{{ (1).toFixed }}",
    '{{ constructor }}{{ globalThis }}{{ process }}{{ require }}{{ this }}{{ hasOwnProperty }}{{ __proto__ }}',
    '{{ {}.toString }}{{ [].map }}{{ loop }}{{ namespace().constructor }}',
  ])('%s', (template) => expect(render(template)).toBe(''));

  it.each(["{{ ''.constructor.constructor('return 1')() }}", '{{ messages.__proto__.x }}', '{{ range.call() }}'])(
    '%s',
    (template) => expect(() => render(template)).toThrow(TemplateError),
  );

  it('reads own properties of such names as what they are', () => {
    const value = JSON.parse('{"__proto__": 1, "constructor": 2, "toString": 3}') as object;
    expect(render("{{ v['__proto__'] }}{{ v.constructor }}{{ v.toString }}{{ v | tojson }}", { v: value })).toBe(
      '123{"__proto__": 1, "constructor": 2, "toString": 3}',
    );
  });

  it('calls functions of the caller with plain values', () => {
    const seen: unknown[] = [];
    const note = (...args: unknown[]) => void seen.push(...args);
    expect(
      render('{{ note(1.5, [1], {"a": none}) }}{{ upper("x") }}', { note, upper: (x: string) => x.toUpperCase() }),
    ).toBe('NoneX');
    expect(seen).toEqual([1.5, [1], { a: null }]);
  });
});

it('tells the time as strftime', () => {
  const template = new Template(
    "{{ strftime_now('%d %b %Y|%A %-d %B|%H:%M:%S %p|%j %y %e|%Y-%m-%d %%') }}",
    TEMPLATE_LIMITS,
  );
  const now = () => new Date(2025, 1, 3, 4, 5, 6);
  expect(template.render({}, TEMPLATE_LIMITS, now)).toBe(
    '03 Feb 2025|Monday 3 February|04:05:06 AM|034 25  3|2025-02-03 %',
  );
});

describe('the heaviest work for a step', () => {
  // Each takes the steps of a rendering; the processor's time for them is bounded whatever they do.
  it.each([
    [
      'text of large integers',
      "{% set x = 2 ** 4000 %}{% for a in r %}{% for b in r %}{% set y = x ~ '' %}{% endfor %}{% endfor %}",
    ],
    ['powers', '{% for a in r %}{% for b in r %}{% set y = 3 ** 2000 %}{% endfor %}{% endfor %}'],
    [
      'large quotients',
      '{% set x = 2 ** 4000 %}{% for a in r %}{% for b in r %}{% set y = x // 3 %}{% endfor %}{% endfor %}',
    ],
    ['unique', '{% for a in r %}{% set y = r | unique | list %}{% endfor %}'],
    [
      'titles',
      "{% set s = 'a ' * 100000 %}{% for a in r %}{% set y = s | title ~ s.title() ~ s.swapcase() %}{% endfor %}",
    ],
    [
      'integers of texts',
      "{% set s = '9' * 1000 %}{% for a in r %}{% for b in r %}{% set y = s | int %}{% endfor %}{% endfor %}",
    ],
    ['comparing lists', '{% for a in r %}{% set y = r == r %}{% set y = r < r %}{% set y = [r] in [r] %}{% endfor %}'],
    [
      'comparing ranges',
      '{% for a in r %}{% for b in r %}{% set y = range(99999) == range(99999) %}{% endfor %}{% endfor %}',
    ],
    [
      'kinds of texts',
      "{% set s = '🙂' * 8000000 %}{% for a in r %}{% for b in r %}{% set y = s is sequence %}{% endfor %}{% endfor %}",
    ],
    ...[
      '{}[x]',
      '{x: 1}',
      '{}.get(x)',
      'x in {}',
      'x is filter',
      '1 | attr(x)',
      "x < 'b'",
      "['b', x] | sort",
      'dict([[x, 1]])',
      '[x] | unique | list',
      "'%.1s' % x",
      "'b' | trim(x)",
    ].map((use) => [
      `a long key: ${use}`,
      `{% set s = 'a' * 16000000 %}{% for a in r %}{% set x = s ~ a %}{% set y = ${use} %}{% endfor %}`,
    ]),
    [
      'grouped digits',
      "{% set x = 3 ** 2500 %}{% for a in r %}{% for b in r %}{% set y = '{:,}'.format(x) %}{% endfor %}{% endfor %}",
    ],
    ['dates', "{% for a in r %}{% for b in r %}{% set y = strftime_now('%c' * 500) %}{% endfor %}{% endfor %}"],
    [
      'many parameters',
      `{% macro f(${Array.from({ length: 20_000 }, (_, i) => `a${i}`).join()}) %}{% endmacro %}{% for a in r %}{% set y = f() %}{% endfor %}`,
    ],
    ['ASCII of other letters', "{% set s = 'é' * 100000 %}{% for a in r %}{% set y = s | tojson(true) %}{% endfor %}"],
  ])(
    '%s',
    (_, source) => {
      const template = new Template(`{% set r = range(100000) | list %}${source}`, TEMPLATE_LIMITS);
      const before = process.cpuUsage();
      expect(() => template.render({}, TEMPLATE_LIMITS)).toThrow(/more than 2500000 steps/);
      const { user, system } = process.cpuUsage(before);
      expect((user + system) / 1e6).toBeLessThan(4); // 0.2 to 1; what is not weighed takes 10 to thousands
    },
    60_000,
  );
});
