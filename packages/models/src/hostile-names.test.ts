// Names from files are never looked up in objects with a prototype: the reader gets names that such objects have.
import { QError } from '@q/config';
import { afterEach, describe, expect, it } from 'vitest';
import { parseModelConfig } from './registry.js';

const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'valueOf', '__defineGetter__'];
const pristine = Object.getOwnPropertyNames(Object.prototype).sort();
afterEach(() => expect(Object.getOwnPropertyNames(Object.prototype).sort()).toEqual(pristine));

const llama = {
  model_type: 'llama',
  architectures: ['LlamaForCausalLM'],
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 64,
  max_position_embeddings: 128,
  hidden_act: 'silu',
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
};
/** The text of `base` with one more key; a literal would lose `__proto__`. */
const withKey = (base: object, key: string, value: unknown) => {
  const text = JSON.stringify(base);
  return `${text.slice(0, -1)}${text === '{}' ? '' : ','}${JSON.stringify(key)}:${JSON.stringify(value)}}`;
};

describe.each(names)('%s', (name) => {
  it('as a key of config.json is told or refused, and changes nothing else', () => {
    for (const value of [null, 1, { hidden_size: 7, polluted: true }, ['x']]) {
      const text = withKey(llama, name, value);
      try {
        const config = parseModelConfig(text);
        expect(config).toMatchObject({ modelType: 'llama', hiddenSize: 32 });
        expect(config.toText()).toBe(text);
      } catch (error) {
        expect(error).toBeInstanceOf(QError);
        expect((error as Error).message).toContain(name);
      }
    }
  });

  it('as a model type, an activation, a dtype, a method', () => {
    for (const key of ['model_type', 'hidden_act', 'torch_dtype'])
      expect(() => parseModelConfig(JSON.stringify({ ...llama, [key]: name }))).toThrow(QError);
    for (const rope of [
      { type: name, factor: 2 },
      { rope_type: name, factor: 2 },
    ])
      expect(() => parseModelConfig(JSON.stringify({ ...llama, rope_scaling: rope }))).toThrow(QError);
    expect(() => parseModelConfig(JSON.stringify({ ...llama, quantization_config: { quant_method: name } }))).toThrow(
      QError,
    );
  });
});
