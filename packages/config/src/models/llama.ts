// Llama 1 to 3. Source followed: transformers' LlamaConfig. Files before grouped-query attention have no
// num_key_value_heads.
import { flag, nullable } from '../schema.js';
import { decoderKeys, decoderShape, expectedKeys, heads, readDecoder } from './decoder.js';
import { defineModel } from './definition.js';

export const llama = defineModel({
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
      slidingWindow: null,
      layerTypes: Array.from({ length: keys.num_hidden_layers }, () => 'full_attention' as const),
    }),
});
