// Small good checkpoints, from which bad ones are made, and their files.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { readFileSync } from 'node:fs';
import { brotliDecompressSync } from 'node:zlib';
import { fileURLToPath } from 'node:url';
import { Random } from './random.mjs';

const text = (value) => Buffer.from(JSON.stringify(value));

/** Empties the folder and writes the files into it. */
export function writeFiles(folder, files) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const [name, bytes] of Object.entries(files)) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, bytes);
  }
}

/** A safetensors file of a header and the bytes behind it. */
export function safetensors(header, data) {
  const json = Buffer.isBuffer(header) ? header : text(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, data]);
}

/** Header and data of a good safetensors file. */
export function partsOf(file) {
  const end = 8 + Number(file.readBigUInt64LE(0));
  return { header: JSON.parse(file.subarray(8, end).toString()), data: file.subarray(end) };
}

/** A file of named tensors, `{ name: { dtype, shape, bytes } }`. */
export function fileOf(tensors) {
  const header = { __metadata__: { format: 'pt' } };
  const parts = [];
  let at = 0;
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [at, at + bytes.length] };
    parts.push(bytes);
    at += bytes.length;
  }
  return safetensors(header, Buffer.concat(parts));
}

/** Small values, so that sums stay small. */
export function floats(random, count) {
  const bytes = Buffer.alloc(4 * count);
  for (let i = 0; i < count; i++) bytes.writeFloatLE(random.next() - 0.5, 4 * i);
  return bytes;
}

const [hidden, vocab, intermediate, layers] = [64, 80, 64, 1];

/** config.json of a llama of one layer. */
export const llamaConfig = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: hidden,
  intermediate_size: intermediate,
  num_hidden_layers: layers,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: vocab,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  rope_scaling: { rope_type: 'linear', factor: 2 },
  hidden_act: 'silu',
  tie_word_embeddings: false,
  attention_bias: false,
  torch_dtype: 'float32',
  bos_token_id: 1,
  eos_token_id: 2,
  pad_token_id: 0,
};

/** Its tensors. */
export function llamaTensors() {
  const random = new Random('llama');
  const tensor = (...shape) => ({
    dtype: 'F32',
    shape,
    bytes: floats(
      random,
      shape.reduce((a, b) => a * b),
    ),
  });
  const layer = {
    'input_layernorm.weight': tensor(hidden),
    'post_attention_layernorm.weight': tensor(hidden),
    'self_attn.q_proj.weight': tensor(hidden, hidden),
    'self_attn.k_proj.weight': tensor(hidden / 2, hidden),
    'self_attn.v_proj.weight': tensor(hidden / 2, hidden),
    'self_attn.o_proj.weight': tensor(hidden, hidden),
    'mlp.gate_proj.weight': tensor(intermediate, hidden),
    'mlp.up_proj.weight': tensor(intermediate, hidden),
    'mlp.down_proj.weight': tensor(hidden, intermediate),
  };
  return {
    'model.embed_tokens.weight': tensor(vocab, hidden),
    ...Object.fromEntries(Object.entries(layer).map(([name, value]) => [`model.layers.0.${name}`, value])),
    'model.norm.weight': tensor(hidden),
    'lm_head.weight': tensor(vocab, hidden),
  };
}

/** The llama as the files of a folder. */
export const llamaFiles = () => ({
  'config.json': text(llamaConfig),
  'generation_config.json': text({ bos_token_id: 1, eos_token_id: [2], max_new_tokens: 4, temperature: 0.7 }),
  'model.safetensors': fileOf(llamaTensors()),
});

const fixtures = fileURLToPath(new URL('../../packages/transformers/fixtures/', import.meta.url));

/** Tokenizers of several kinds, `{ name: { 'tokenizer.json': ..., ... } }`, as JSON values. */
export function tokenizers() {
  const all = JSON.parse(brotliDecompressSync(readFileSync(join(fixtures, 'tokenizers.json.br'))).toString());
  return Object.fromEntries(
    Object.entries(all).map(([name, files]) => {
      const kept = Object.entries(files).filter(([file]) => file !== 'vectors.json');
      return [name, Object.fromEntries(kept.map(([file, value]) => [file, valueOf(value)]))];
    }),
  );
}

const valueOf = (value) => (typeof value === 'string' ? JSON.parse(value) : value);
