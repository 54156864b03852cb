// Llama 1 to 3. Source followed: transformers' LlamaConfig. Files before grouped-query attention have no
// num_key_value_heads.
import { flag, nullable, positive } from '../schema.js';
import { decoderKeys, decoderShape, readDecoder } from './decoder.js';
import { defineModel } from './definition.js';

export const llama = defineModel({
  modelType: 'llama',
  shape: {
    ...decoderShape,
    num_key_value_heads: nullable(positive),
    attention_bias: flag(false),
    mlp_bias: flag(false),
  },
  alsoReads: decoderKeys,
  read: (keys, raw, op) =>
    readDecoder(keys, raw, op, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: keys.attention_bias,
      attentionOutputBias: keys.attention_bias,
      mlpBias: keys.mlp_bias,
      slidingWindow: null,
      layerTypes: Array.from({ length: keys.num_hidden_layers }, () => 'full_attention' as const),
    }),
});
