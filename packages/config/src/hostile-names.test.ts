// Names from files are never looked up in objects with a prototype: every reader gets names that such objects have.
import { afterEach, describe, expect, it } from 'vitest';
import { BitsAndBytesConfig } from './bitsandbytes.js';
import { QError } from './errors.js';
import { GenerationConfig } from './generation.js';
import { GPTQConfig } from './gptq.js';
import { parseDType } from './dtype.js';

const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'valueOf', '__defineGetter__'];
const pristine = Object.getOwnPropertyNames(Object.prototype).sort();
afterEach(() => expect(Object.getOwnPropertyNames(Object.prototype).sort()).toEqual(pristine));

/** The text of `base` with one more key; a literal would lose `__proto__`. */
const withKey = (base: object, key: string, value: unknown) => {
  const text = JSON.stringify(base);
  return `${text.slice(0, -1)}${text === '{}' ? '' : ','}${JSON.stringify(key)}:${JSON.stringify(value)}}`;
};

describe.each(names)('%s', (name) => {
  it('as a dtype', () => {
    expect(() => parseDType(name)).toThrow(QError);
  });

  it('as a key of a quantization or generation config is kept and written back', () => {
    for (const [read, base] of [
      [BitsAndBytesConfig.fromJSON, { quant_method: 'bitsandbytes', load_in_4bit: true }],
      [GPTQConfig.fromJSON, { quant_method: 'gptq', bits: 4 }],
      [GenerationConfig.fromJSON, { temperature: 0.5 }],
    ] as const) {
      const config = (read as (text: string) => { toText(): string })(withKey(base, name, { polluted: true }));
      expect(config.toText()).toContain(`"${name}"`);
      expect((config as { polluted?: unknown }).polluted).toBeUndefined();
    }
  });
});
