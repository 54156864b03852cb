// Qwen 1.5, 2 and 2.5. Source followed: transformers' Qwen2Config. Against Llama: biases on q, k, v only; with
// use_sliding_window the layers from max_window_layers on slide.
import { z } from 'zod';
import { flag, positive, integer } from '../schema.js';
import { decoderKeys, decoderShape, layerTypes, readDecoder, readWindow } from './decoder.js';
import { defineModel } from './definition.js';

export const qwen2 = defineModel({
  modelType: 'qwen2',
  shape: {
    ...decoderShape,
    num_key_value_heads: positive,
    use_sliding_window: flag(false),
    sliding_window: z.nullable(positive).default(4096),
    max_window_layers: integer.min(0, { error: 'must be 0 or more' }).default(28),
    layer_types: layerTypes,
  },
  alsoReads: decoderKeys,
  read: (keys, raw, op) => {
    const window = keys.use_sliding_window ? keys.sliding_window : null;
    return readDecoder(keys, raw, op, {
      numKvHeads: keys.num_key_value_heads,
      attentionBias: true,
      attentionOutputBias: false,
      mlpBias: false,
      ...readWindow(op, keys.num_hidden_layers, keys.layer_types, window, (layer) =>
        layer >= keys.max_window_layers ? 'sliding_attention' : 'full_attention',
      ),
    });
  },
});
