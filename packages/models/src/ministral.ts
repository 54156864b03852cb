// Ministral 8B (Mistral AI 2024). Source followed: transformers' MinistralConfig. Against Llama: no biases, and layers
// slide where layer_types says; without it all do unless sliding_window is null; a file without that key means 4096.
import { defineModel } from '@q/config';
import { z } from 'zod';
import {
  decoderKeys,
  decoderShape,
  expectedKeys,
  heads,
  layerTypes,
  readDecoder,
  readWindow,
  window,
} from './shared/decoder-config.js';
import { llamaFamily } from './shared/llama-family.js';

const config = defineModel({
  modelType: 'ministral',
  shape: {
    ...decoderShape({ vocab_size: 32000, intermediate_size: 14336, max_position_embeddings: 131072 }),
    // null means as many as query heads, a missing key 8.
    num_key_value_heads: z.nullable(heads).default(8),
    sliding_window: z.nullable(window).default(4096),
    layer_types: layerTypes,
  },
  alsoReads: decoderKeys,
  expected: [...expectedKeys, 'num_key_value_heads'],
  tokenIds: { bos: 1, eos: 2 },
  read: (keys, raw, context) =>
    readDecoder(keys, raw, context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: false,
      attentionOutputBias: false,
      mlpBias: false,
      ...readWindow(
        context.op,
        keys.num_hidden_layers,
        keys.layer_types,
        keys.sliding_window,
        () => 'sliding_attention',
      ),
    }),
});

export const ministral = llamaFamily(config, 'Ministral');
