import { describe, expect, it } from 'vitest';
import { checkCommand } from './check.js';
import { evaluate, parseExpression, type Scope } from './expression.js';
import { checkFunctions } from './header-check.js';
import { rules, type Rules } from './rules.js';
import { commandNames, commands, type Fields } from './schema.js';

const scope: Scope = {
  value: (name) => ({ rows: 3, width: 5, none: 0, here: 1 })[name] ?? Number.NaN,
  tensor: () => ({ bytes: 24, dtypeCode: 5, count: 6 }),
  list: () => [2, 3, 4],
};
const value = (text: string) => evaluate(parseExpression(text), scope);

describe('expressions', () => {
  it.each([
    ['rows * width + 1', 16],
    ['rows + width * 2', 13],
    ['(rows + width) * 2', 16],
    ['width / 2', 2],
    ['width % 2 == 1 && rows <= 3', 1],
    ['none || !here', 0],
    ['ceil(width, 2)', 3],
    ['strided(rows, width, 2)', 12],
    ['strided(none, width, 2)', 0],
    ['sum(parts.n) + first(parts.n) + last(parts.n)', 15],
    ['count(x) == 6 && bytes(x) == 24 && dtype(x) == i32', 1],
    ['width / none', Infinity],
  ])('%s is %d', (text, expected) => expect(value(text)).toBe(expected));

  it.each(['', 'rows *', 'rows width', '(rows', 'rows ? 1', '* rows'])('"%s" is none', (text) =>
    expect(() => value(text)).toThrow(/expression|value|lacks|Cannot read|undefined/),
  );
});

describe('rules', () => {
  const tensorsOf = (own: Rules) => [
    ...Object.keys(own.tensors ?? {}),
    ...(own.cases ?? []).flatMap(({ tensors = {} }) => Object.keys(tensors)),
    ...(own.writes ?? []),
  ];

  it.each(commandNames)('%s: every tensor has one, or may be anything', (name) => {
    const fields: Fields = commands[name];
    const known = new Set(tensorsOf(rules[name]));
    const free = Object.entries(fields).filter(
      ([field, type]) => String(type).startsWith('tensor') && !known.has(field),
    );
    const anything: Record<string, string[]> = { copy: ['src'], cast: ['x'] };
    expect(free.map(([field]) => field)).toEqual(anything[name] ?? []);
    expect((rules[name].writes ?? []).some((field) => Object.hasOwn(fields, field))).toBe(true);
  });

  it('become C++ for every command', () => {
    const text = checkFunctions();
    for (const name of commandNames) expect(text.toLowerCase()).toContain(`check(const ${name.toLowerCase()}args& a`);
  });
});

describe('checkCommand', () => {
  const ref = (count: number, buffer = 1, offset = 0) => ({ buffer, offset, dtypeCode: 0, bytes: count * 4 });
  const check = (args: Record<string, unknown>) =>
    checkCommand('softmax', { x: ref(6), out: ref(6, 2), rows: 2, width: 3, ...args }, ['f32']);

  it('passes what fits, in place too', () => {
    check({});
    check({ out: ref(6) });
    check({ out: ref(6, 1, 24), rows: 2 });
    check({ rows: 0 });
  });

  it.each([
    [{ rows: 2.5 }, 'rows is 2.5, must be an integer from 0 to 2147483647'],
    [{ width: 0 }, 'width is 0, must be an integer from 1 to 2147483647'],
    [{ rows: 3 }, 'x holds 6 elements, 9 are needed'],
    [{ x: undefined }, 'x is missing'],
    [{ out: { ...ref(6, 2), dtypeCode: 1 } }, 'out is f16, must be f32'],
    [{ out: ref(6, 1, 4) }, 'out overlaps x'],
    [{ out: { ...ref(6, 2), offset: 1 } }, 'out has offset 1, which must be a multiple of the 4 of f32'],
    [{ out: { ...ref(6, 2), bytes: Number.NaN } }, 'out has bytes NaN, which must be an integer that is not negative'],
    [{ out: { ...ref(6, 2), dtypeCode: 9 } }, 'out has an unknown dtype code 9'],
  ])('%j: %s', (args, message) => expect(() => check(args)).toThrow(message));
});
