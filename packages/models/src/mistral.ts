// Mistral 7B. Source followed: transformers' MistralConfig. Against Llama: no biases, and every layer slides unless
// sliding_window is null; a file without the key means 4096.
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

/** The reader of Mistral's keys, which Ministral has too. */
export const mistralConfig = <const M extends string>(modelType: M) =>
  defineModel({
    modelType,
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

export const mistral = llamaFamily(mistralConfig('mistral'), 'Mistral');
