// Qwen 3 (Yang et al. 2025, arXiv 2505.09388; transformers models/qwen3): Llama with a norm of each query and key head,
// and a head size of its own; with use_sliding_window the layers from max_window_layers on slide.
import { ConfigError, defineModel, schema } from '@q/config';
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
import { normedAttention } from './shared/normed-attention.js';

const { flag, integer, orElse } = schema;

const config = defineModel({
  modelType: 'qwen3',
  shape: {
    ...decoderShape({
      vocab_size: 151936,
      intermediate_size: 22016,
      head_dim: 128,
      max_position_embeddings: 32768,
    }),
    // null means as many as query heads, a missing key 32.
    num_key_value_heads: z.nullable(heads).default(32),
    attention_bias: flag(false),
    use_sliding_window: flag(false),
    // 0 is written by files that switch the window off beside it.
    sliding_window: z.nullable(z.union([z.literal(0), window])).default(4096),
    max_window_layers: orElse(integer.min(0, { error: 'must be 0 or more' }), 28),
    layer_types: layerTypes,
  },
  alsoReads: decoderKeys,
  expected: [...expectedKeys, 'num_key_value_heads', 'head_dim'],
  read: (keys, raw, context) => {
    if (keys.use_sliding_window && keys.sliding_window === 0)
      throw new ConfigError(context.op, 'use_sliding_window is true and sliding_window is 0', {
        fix: 'set use_sliding_window to false',
      });
    const sliding = keys.use_sliding_window ? keys.sliding_window : null;
    return readDecoder(keys, raw, context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: keys.attention_bias,
      attentionOutputBias: keys.attention_bias,
      mlpBias: false,
      ...readWindow(context.op, keys.num_hidden_layers, keys.layer_types, sliding, (layer) =>
        layer >= keys.max_window_layers ? 'sliding_attention' : 'full_attention',
      ),
    });
  },
});

export const qwen3 = llamaFamily(config, 'Qwen3', { attention: normedAttention() });
