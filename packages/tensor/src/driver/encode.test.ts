import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { commandCodes, decode, encode } from './encode.js';
import { commandNames, commands, maxLinearParts, type CommandArgs, type FieldType, type Fields } from './schema.js';

const ref = fc.record({
  buffer: fc.integer({ min: 1, max: 2 ** 40 }),
  offset: fc.nat(2 ** 48),
  dtypeCode: fc.nat(7),
  bytes: fc.nat(2 ** 48),
});

const valueOf = (type: FieldType): fc.Arbitrary<unknown> => {
  if (type === 'int') return fc.maxSafeInteger();
  if (type === 'float') return fc.double({ noNaN: false });
  if (type === 'tensor') return ref;
  if (type === 'tensor?') return fc.option(ref, { nil: undefined });
  return fc.array(argsOf(type.repeat), { maxLength: maxLinearParts });
};
const argsOf = (fields: Fields): fc.Arbitrary<Record<string, unknown>> =>
  fc.record(Object.fromEntries(Object.entries(fields).map(([name, type]) => [name, valueOf(type)])));

describe.each(commandNames)('%s', (name) => {
  it('decodes to what was encoded, with keys in any order', () => {
    fc.assert(
      fc.property(argsOf(commands[name]), (args) => {
        expect(decode(name, encode(name, args as CommandArgs<typeof name>))).toEqual(args);
        const turned = Object.fromEntries(Object.entries(args).reverse());
        expect(decode(name, encode(name, turned as CommandArgs<typeof name>))).toEqual(args);
      }),
      { numRuns: 30, seed: 1 },
    );
  });
});

it('numbers the commands in the order of the table', () =>
  expect(commandNames.map((name) => commandCodes[name])).toEqual(commandNames.map((_, i) => i)));
