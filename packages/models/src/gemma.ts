// Gemma (Gemma Team 2024, arXiv 2403.08295; transformers models/gemma): Llama with embeddings times sqrt(hidden size),
// norms that multiply by 1 + weight, GELU in the MLP, and a head size of its own.
import { defineModel, schema } from '@q/config';
import { z } from 'zod';
import { decoderKeys, decoderShape, expectedKeys, heads, noWindow, readDecoder } from './shared/decoder-config.js';
import { activation } from './shared/activation.js';
import { assertCausal, bidirectional, scaledEmbedding } from './shared/gemma-parts.js';
import { llamaFamily } from './shared/llama-family.js';

const { flag, orElse } = schema;

const config = defineModel({
  modelType: 'gemma',
  shape: {
    ...decoderShape({
      vocab_size: 256000,
      hidden_size: 3072,
      intermediate_size: 24576,
      num_hidden_layers: 28,
      num_attention_heads: 16,
      head_dim: 256,
      max_position_embeddings: 8192,
      tie_word_embeddings: true,
    }),
    hidden_act: orElse(activation, 'gelu_tanh'),
    num_key_value_heads: z.nullable(heads).default(16),
    attention_bias: flag(false),
    use_bidirectional_attention: bidirectional,
  },
  alsoReads: decoderKeys,
  expected: [...expectedKeys, 'num_key_value_heads', 'head_dim'],
  tokenIds: { bos: 2, eos: 1, pad: 0 },
  read: (keys, raw, context) => {
    assertCausal(context.op, keys.use_bidirectional_attention);
    const decoder = readDecoder(keys, { hidden_act: 'gelu_pytorch_tanh', ...raw }, context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: keys.attention_bias,
      attentionOutputBias: keys.attention_bias,
      mlpBias: false,
      ...noWindow(keys.num_hidden_layers),
    });
    return decoder;
  },
});

export const gemma = llamaFamily(config, 'Gemma', {
  norm: { weightOffset: 1 },
  embedding: scaledEmbedding('GemmaTextScaledWordEmbedding'),
});
