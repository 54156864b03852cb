// GLM 4 (Team GLM 2024, arXiv 2406.12793; transformers models/glm4): Llama with norms before and after attention and
// MLP, one product for gate and up, and neighbouring pairs rotated in a part of each head.
import { defineModel, schema } from '@q/config';
import { z } from 'zod';
import { BranchLayer, through } from './shared/branch-layer.js';
import {
  decoderKeys,
  decoderShape,
  expectedKeys,
  heads,
  noWindow,
  readDecoder,
  type DecoderConfig,
} from './shared/decoder-config.js';
import type { SequentialParts } from './shared/decoder-layer.js';
import { FusedGatedMlp } from './shared/fused-mlp.js';
import { llamaFamily, type LayerContext } from './shared/llama-family.js';

const { flag } = schema;

const config = defineModel({
  modelType: 'glm4',
  shape: {
    ...decoderShape({
      vocab_size: 151552,
      intermediate_size: 13696,
      num_hidden_layers: 40,
      head_dim: 128,
      max_position_embeddings: 131072,
      rms_norm_eps: 1.5625e-7,
    }),
    num_key_value_heads: z.nullable(heads).default(2),
    attention_bias: flag(true),
  },
  alsoReads: decoderKeys,
  expected: [...expectedKeys, 'num_key_value_heads', 'head_dim'],
  read: (keys, raw, context) =>
    readDecoder(
      keys,
      raw,
      context,
      {
        numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
        attentionBias: keys.attention_bias,
        attentionOutputBias: false,
        mlpBias: false,
        ...noWindow(keys.num_hidden_layers),
      },
      { share: 0.5 },
    ),
});

function layer(parts: Pick<SequentialParts, 'attention' | 'mlp'>, { norm }: LayerContext<DecoderConfig>): BranchLayer {
  const [attentionNorm, mlpNorm, afterAttention, afterMlp] = [norm(), norm(), norm(), norm()];
  const children = {
    self_attn: parts.attention,
    mlp: parts.mlp,
    input_layernorm: attentionNorm,
    post_attention_layernorm: mlpNorm,
    post_self_attn_layernorm: afterAttention,
    post_mlp_layernorm: afterMlp,
  };
  const leaves = { leaveAttention: through(afterAttention), leaveMlp: through(afterMlp) };
  return new BranchLayer('Glm4DecoderLayer', children, { ...parts, attentionNorm, mlpNorm, ...leaves });
}

export const glm4 = llamaFamily(config, 'Glm4', {
  interleaved: true,
  mlp: ({ settings }) => new FusedGatedMlp('Glm4MLP', settings),
  layer,
});
