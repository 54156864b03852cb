// Gemma 3 without images (Gemma Team 2025, arXiv 2503.19786; transformers models/gemma3): Gemma 2 without caps of the
// scores, with norms of query and key heads, and five layers that slide, rotated on a base of their own, to each full
// one.
import { defineModel, schema, type RopeConfig } from '@q/config';
import { z } from 'zod';
import { activation, activationClass } from './shared/activation.js';
import {
  decoderKeys,
  decoderShape,
  expectedKeys,
  heads,
  layerTypes,
  positive,
  readDecoder,
  readWindow,
  window,
  type DecoderConfig,
} from './shared/decoder-config.js';
import { assertCausal, bidirectional, fourNormLayer, scaledEmbedding } from './shared/gemma-parts.js';
import { llamaFamily } from './shared/llama-family.js';
import { normedAttention } from './shared/normed-attention.js';
import { readRopeByKind } from './shared/rope-by-kind.js';
import { size } from './shared/sizes.js';

const { flag, orElse } = schema;

export interface Gemma3TextConfig extends DecoderConfig {
  /** Rotary settings of layers that slide; `rope` is that of the others. */
  readonly slidingRope: RopeConfig;
  /** Scores are divided by its root. */
  readonly queryPreAttnScalar: number;
  /** Null: no cap. */
  readonly logitSoftcap: number | null;
}

const { hidden_act: _, ...shape } = decoderShape({
  vocab_size: 262208,
  hidden_size: 2304,
  intermediate_size: 9216,
  num_hidden_layers: 26,
  num_attention_heads: 8,
  head_dim: 256,
  max_position_embeddings: 131072,
  tie_word_embeddings: true,
});

const config = defineModel({
  modelType: 'gemma3_text',
  shape: {
    ...shape,
    hidden_activation: orElse(activation, 'gelu_tanh'),
    num_key_value_heads: z.nullable(heads).default(4),
    attention_bias: flag(false),
    query_pre_attn_scalar: orElse(positive, 256),
    sliding_window: z.nullable(window).default(4096),
    layer_types: layerTypes,
    // The last of so many layers sees all keys: what files had before `layer_types`.
    sliding_window_pattern: orElse(size.layers, 6),
    final_logit_softcapping: z.nullable(positive).default(null),
    use_bidirectional_attention: bidirectional,
  },
  // transformers writes the pattern back under the second name, and reads the first.
  alsoReads: [...decoderKeys, 'rope_local_base_freq', '_sliding_window_pattern'],
  // The class reads this cap, and its attention has none.
  neutral: { attn_logit_softcapping: [null] },
  expected: [...expectedKeys.filter((key) => key !== 'hidden_act'), 'num_key_value_heads', 'head_dim'],
  tokenIds: { bos: 2, eos: 1, pad: 0 },
  read: (keys, raw, context): Gemma3TextConfig => {
    const { op } = context;
    assertCausal(op, keys.use_bidirectional_attention);
    const { head_dim, max_position_embeddings: maxPositionEmbeddings, sliding_window_pattern: pattern } = keys;
    const ropeContext = { ...context, headDim: head_dim!, maxPositionEmbeddings };
    const ropes = readRopeByKind(raw, ropeContext, {
      full_attention: { theta: 1e6, baseKey: 'rope_theta', scaled: true },
      sliding_attention: { theta: 1e4, baseKey: 'rope_local_base_freq', scaled: false },
    });
    const decoder = readDecoder({ ...keys, hidden_act: keys.hidden_activation }, {}, context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: keys.attention_bias,
      attentionOutputBias: keys.attention_bias,
      mlpBias: false,
      activationClass: activationClass(String(raw.hidden_activation ?? 'gelu_pytorch_tanh')),
      ...readWindow(op, keys.num_hidden_layers, keys.layer_types, keys.sliding_window, (layer) =>
        (layer + 1) % pattern === 0 ? 'full_attention' : 'sliding_attention',
      ),
    });
    return {
      ...decoder,
      rope: ropes.full_attention,
      slidingRope: ropes.sliding_attention,
      queryPreAttnScalar: keys.query_pre_attn_scalar,
      logitSoftcap: keys.final_logit_softcapping,
    };
  },
});

export const gemma3Text = llamaFamily(config, 'Gemma3', {
  base: 'Gemma3TextModel',
  norm: { weightOffset: 1 },
  embedding: scaledEmbedding('Gemma3TextScaledWordEmbedding'),
  attention: normedAttention({ weightOffset: 1 }),
  scores: ({ queryPreAttnScalar }) => ({ scale: queryPreAttnScalar ** -0.5 }),
  slidingRope: ({ slidingRope }) => slidingRope,
  layer: fourNormLayer,
  logits: ({ logitSoftcap }) => ({ softcap: logitSoftcap ?? undefined }),
});
