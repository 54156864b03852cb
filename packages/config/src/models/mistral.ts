// Mistral 7B. Source followed: transformers' MistralConfig. Against Llama: no biases, and every layer slides unless
// sliding_window is null; a file without the key means 4096.
import { z } from 'zod';
import { positive } from '../schema.js';
import { decoderKeys, decoderShape, layerTypes, readDecoder, readWindow } from './decoder.js';
import { defineModel } from './definition.js';

export const mistral = defineModel({
  modelType: 'mistral',
  shape: {
    ...decoderShape,
    num_key_value_heads: positive,
    sliding_window: z.nullable(positive).default(4096),
    layer_types: layerTypes,
  },
  alsoReads: decoderKeys,
  read: (keys, raw, op) =>
    readDecoder(keys, raw, op, {
      numKvHeads: keys.num_key_value_heads,
      attentionBias: false,
      attentionOutputBias: false,
      mlpBias: false,
      ...readWindow(op, keys.num_hidden_layers, keys.layer_types, keys.sliding_window, () => 'sliding_attention'),
    }),
});
