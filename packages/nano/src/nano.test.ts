import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { nanoFolder } from './index.js';

const read = (name: string) => readFileSync(join(nanoFolder(), name));

it('holds a whole model', () => {
  expect(readdirSync(nanoFolder()).sort()).toEqual([
    'config.json',
    'generation_config.json',
    'model.safetensors',
    'special_tokens_map.json',
    'tokenizer.json',
    'tokenizer_config.json',
  ]);
});

it('is the model of the README', () => {
  expect(JSON.parse(read('config.json').toString())).toMatchObject({
    model_type: 'llama',
    hidden_size: 256,
    intermediate_size: 768,
    num_hidden_layers: 8,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    vocab_size: 4096,
    max_position_embeddings: 2048,
    tie_word_embeddings: true,
  });
  const weights = read('model.safetensors');
  const header = JSON.parse(weights.subarray(8, 8 + Number(weights.readBigUInt64LE())).toString()) as Record<
    string,
    { dtype: string; shape: number[] }
  >;
  const tensors = Object.entries(header).filter(([name]) => name !== '__metadata__');
  expect(new Set(tensors.map(([, { dtype }]) => dtype))).toEqual(new Set(['BF16']));
  expect(tensors.reduce((sum, [, { shape }]) => sum + shape.reduce((a, b) => a * b, 1), 0)).toBe(7_344_384);
});

it('has the weights and the tokenizer that its perplexities were measured with', () => {
  const digest = (name: string) => createHash('sha256').update(read(name)).digest('hex');
  expect(digest('model.safetensors')).toBe('6abd6f99a278be5befcf843ec59186ea4ad4aaa5ea504bbe1f7a05594474bb90');
  expect(digest('tokenizer.json')).toBe('07237d35660fd14fff87fe3bd62c82c7095fe57133eceef9b81c12b64e08dbc1');
});
