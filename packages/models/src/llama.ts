// Llama 1 to 3 (Touvron et al. 2023, arXiv 2302.13971; transformers models/llama): pre-norm decoder, RMS norm, rotary
// positions, grouped queries, gated SiLU. Files before grouped-query attention have no num_key_value_heads. Mistral
// adds a sliding window, Qwen 2 biases on q, k and v: all are the modules of shared/llama-family.ts with other
// settings.
import { defineModel, schema } from '@q/config';
import { decoderKeys, decoderShape, expectedKeys, heads, noWindow, readDecoder } from './shared/decoder-config.js';
import { llamaFamily } from './shared/llama-family.js';

const { flag, nullable } = schema;

const config = defineModel({
  modelType: 'llama',
  shape: {
    ...decoderShape({ vocab_size: 32000, intermediate_size: 11008, max_position_embeddings: 2048 }),
    num_key_value_heads: nullable(heads),
    attention_bias: flag(false),
    mlp_bias: flag(false),
  },
  alsoReads: decoderKeys,
  expected: expectedKeys,
  tokenIds: { bos: 1, eos: 2 },
  read: (keys, raw, context) =>
    readDecoder(keys, raw, context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: keys.attention_bias,
      attentionOutputBias: keys.attention_bias,
      mlpBias: keys.mlp_bias,
      ...noWindow(keys.num_hidden_layers),
    }),
});

export const llama = llamaFamily(config, 'Llama');
