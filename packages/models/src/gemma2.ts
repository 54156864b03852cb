// Gemma 2 (Gemma Team 2024, arXiv 2408.00118; transformers models/gemma2): Gemma with norms before and after attention
// and MLP, scores and logits that are capped, a scale of the scores of its own, and a window in every second layer.
import { defineModel, schema } from '@q/config';
import { z } from 'zod';
import { activation, activationClass } from './shared/activation.js';
import { BranchLayer, through } from './shared/branch-layer.js';
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
import type { SequentialParts } from './shared/decoder-layer.js';
import { assertCausal, bidirectional, scaledEmbedding } from './shared/gemma-parts.js';
import { llamaFamily, type LayerContext } from './shared/llama-family.js';

const { flag, orElse } = schema;

export interface Gemma2Config extends DecoderConfig {
  /** Scores are divided by its root. */
  readonly queryPreAttnScalar: number;
  /** Null: no cap. */
  readonly scoreSoftcap: number | null;
  readonly logitSoftcap: number | null;
}

const { hidden_act: _, ...shape } = decoderShape({
  vocab_size: 256000,
  hidden_size: 2304,
  intermediate_size: 9216,
  num_hidden_layers: 26,
  num_attention_heads: 8,
  head_dim: 256,
  max_position_embeddings: 8192,
  tie_word_embeddings: true,
});

const config = defineModel({
  modelType: 'gemma2',
  shape: {
    ...shape,
    hidden_activation: orElse(activation, 'gelu_tanh'),
    num_key_value_heads: z.nullable(heads).default(4),
    attention_bias: flag(false),
    query_pre_attn_scalar: orElse(positive, 256),
    sliding_window: z.nullable(window).default(4096),
    layer_types: layerTypes,
    final_logit_softcapping: z.nullable(positive).default(30),
    attn_logit_softcapping: z.nullable(positive).default(50),
    use_bidirectional_attention: bidirectional,
  },
  alsoReads: decoderKeys,
  expected: [...expectedKeys.filter((key) => key !== 'hidden_act'), 'num_key_value_heads', 'head_dim'],
  tokenIds: { bos: 2, eos: 1, pad: 0 },
  // Published files name the activation of their first code beside the one that counts.
  neutral: { hidden_act: ['gelu_pytorch_tanh'] },
  read: (keys, raw, context): Gemma2Config => {
    const { op } = context;
    assertCausal(op, keys.use_bidirectional_attention);
    const decoder = readDecoder({ ...keys, hidden_act: keys.hidden_activation }, raw, context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: keys.attention_bias,
      attentionOutputBias: keys.attention_bias,
      mlpBias: false,
      activationClass: activationClass(String(raw.hidden_activation ?? 'gelu_pytorch_tanh')),
      ...readWindow(op, keys.num_hidden_layers, keys.layer_types, keys.sliding_window, (layer) =>
        layer % 2 === 0 ? 'sliding_attention' : 'full_attention',
      ),
    });
    return {
      ...decoder,
      queryPreAttnScalar: keys.query_pre_attn_scalar,
      scoreSoftcap: keys.attn_logit_softcapping,
      logitSoftcap: keys.final_logit_softcapping,
    };
  },
});

function layer(parts: Pick<SequentialParts, 'attention' | 'mlp'>, { norm }: LayerContext<DecoderConfig>): BranchLayer {
  const [attentionNorm, afterAttention, mlpNorm, afterMlp] = [norm(), norm(), norm(), norm()];
  const children = {
    self_attn: parts.attention,
    mlp: parts.mlp,
    input_layernorm: attentionNorm,
    post_attention_layernorm: afterAttention,
    pre_feedforward_layernorm: mlpNorm,
    post_feedforward_layernorm: afterMlp,
  };
  const leaves = { leaveAttention: through(afterAttention), leaveMlp: through(afterMlp) };
  return new BranchLayer('Gemma2DecoderLayer', children, { ...parts, attentionNorm, mlpNorm, ...leaves });
}

export const gemma2 = llamaFamily(config, 'Gemma2', {
  norm: { weightOffset: 1 },
  embedding: scaledEmbedding('Gemma2TextScaledWordEmbedding'),
  scores: ({ queryPreAttnScalar, scoreSoftcap }) => ({
    scale: queryPreAttnScalar ** -0.5,
    softcap: scoreSoftcap ?? 0,
  }),
  layer,
  logits: ({ logitSoftcap }) => ({ softcap: logitSoftcap ?? undefined }),
});
