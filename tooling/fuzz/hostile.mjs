// Values that programs trip over.

/** Text that stands for itself in JSON: numbers and nestings that no JavaScript value becomes. */
export class Raw {
  constructor(text) {
    this.text = text;
  }
}

const nested = (open, inner, close, depth) => new Raw(open.repeat(depth) + inner + close.repeat(depth));

export const names = [
  '__proto__',
  'constructor',
  'prototype',
  'toString',
  'hasOwnProperty',
  'valueOf',
  'then',
  'length',
  '',
  ' ',
  '.',
  '..',
  '../../../../tmp/fuzz-escaped',
  '/etc/passwd',
  'C:\\x',
  'a\u0000b',
  '\ud800',
  '\u001b[2J',
  '\u202e',
  '0',
  '-1',
  'NaN',
  'model',
  'model.layers.0.self_attn.q_proj.weight',
  'model.layers.999999999.mlp.up_proj.weight',
  'lm_head.weight',
  'weight',
  'x'.repeat(5000),
  'a.'.repeat(3000),
];

export const numbers = [
  0,
  -0,
  1,
  -1,
  2,
  3,
  7,
  63,
  64,
  65,
  255,
  256,
  0.5,
  -0.5,
  1e-45,
  1e-300,
  1e6,
  1e9,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 32,
  2 ** 33 + 1,
  2 ** 40,
  2 ** 53 - 1,
  2 ** 53,
  2 ** 53 + 2,
  2 ** 63,
  2 ** 64,
  1e300,
  1.7976931348623157e308,
  -(2 ** 31),
  -(2 ** 53),
  3.4028235e38,
  65504,
  65536,
];

export const raws = [
  new Raw('1e999'),
  new Raw('-1e999'),
  new Raw('NaN'),
  new Raw('Infinity'),
  new Raw('-Infinity'),
  new Raw('123456789012345678901234567890'),
  new Raw('9007199254740993'),
  new Raw('18446744073709551615'),
  new Raw('0.1e-400'),
  new Raw('undefined'),
  new Raw(''),
  new Raw('"\\ud800"'),
  new Raw('{"a":1,"a":2}'),
  new Raw('{"__proto__":{"polluted":true}}'),
  nested('[', '', ']', 60),
  nested('[', '1', ']', 5000),
  nested('{"a":', '1', '}', 5000),
  nested('[', '', ']', 100000),
];

export const strings = [
  ...names,
  'float32',
  'bfloat16',
  'float8_e4m3fn',
  'F32',
  'I64',
  'U8',
  'nf4',
  'auto',
  'null',
  'true',
  '1',
  '1e9',
  '\ufeff',
  '\n',
  '▁',
  'Ġ',
  '🙂'.repeat(50),
  'e\u0301'.repeat(500),
  '(a+)+$',
  '[',
  '\\',
  '(?<n>',
  '\\p{L}+',
  '$&',
  'a'.repeat(100000),
];

/** A value that a file may hold anywhere. */
export function value(random) {
  switch (random.int(0, 9)) {
    case 0:
      return null;
    case 1:
      return random.chance(0.5);
    case 2:
    case 3:
    case 4:
      return random.pick(numbers);
    case 5:
      return random.pick(strings);
    case 6:
      return random.pick(raws);
    case 7:
      return Array.from({ length: random.pick([0, 1, 2, 3, 17, 300]) }, () => random.pick(numbers));
    case 8:
      return random.chance(0.5) ? [] : {};
    default: {
      const object = {};
      set(object, random.pick(names), random.pick(numbers));
      return object;
    }
  }
}

const words = [
  'model.layers.0.',
  '0123456789',
  ' ',
  '\\n',
  '(a+)+',
  '[',
  'a|',
  '\\u0000',
  '\\ud800',
  '__proto__.',
  '🙂',
  '.*',
];

/** A value that is large: a long string, many entries, deep nests, or several of these. */
export function large(random) {
  const count = random.pick([1000, 9_999, 10_001, 100_000, 262_145]);
  const word = random.pick(words);
  const few = Math.min(count, 20_000);
  switch (random.int(0, 7)) {
    case 0:
      return new Raw(`"${word.repeat(count)}"`);
    case 1:
      return new Raw(
        `[${Array(count)
          .fill(random.pick(['1', '0.5', 'null', '[]', '"a"', '{}']))
          .join()}]`,
      );
    case 2:
      return new Raw(`{${Array.from({ length: few }, (_, i) => `"${word}${i}":${i}`).join()}}`);
    case 3:
      return new Raw(`{${Array.from({ length: few }, (_, i) => `"${i}":"${word}"`).join()}}`);
    case 4:
      return nested(...random.pick(nests), random.pick([50, 98, 99, 100, 101, 1000, 200_000]));
    case 5:
      return new Raw(`[${Array.from({ length: 300 }, () => nested(...random.pick(nests), 90).text).join()}]`);
    case 6:
      return new Raw(`${random.pick(['-', '', '0.', '1e', '1e-'])}${'9'.repeat(count)}`);
    default:
      return new Raw(`[${Array.from({ length: 1000 }, (_, i) => `"${word.repeat(20)}${i}"`).join()}]`);
  }
}

const nests = [
  ['[', '', ']'],
  ['[[],', '1', ',2]'],
  ['{"a":', '1', '}'],
  ['{"type":"Sequence","a":[', '1', ']}'],
];

/** Sets an own property, whatever its name. */
export function set(object, name, content) {
  Object.defineProperty(object, name, { value: content, enumerable: true, configurable: true, writable: true });
}
