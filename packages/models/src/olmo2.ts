// OLMo 2 (OLMo Team 2024, arXiv 2501.00656; transformers models/olmo2): Llama with norms behind attention and MLP in
// place of those before them, and one norm over all query heads and one over all key heads.
import { defineModel, schema } from '@q/config';
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
import { llamaFamily, type LayerContext } from './shared/llama-family.js';
import { normedAttention } from './shared/normed-attention.js';

const { flag, nullable } = schema;

const config = defineModel({
  modelType: 'olmo2',
  shape: {
    ...decoderShape({
      vocab_size: 50304,
      intermediate_size: 11008,
      max_position_embeddings: 2048,
      rms_norm_eps: 1e-5,
    }),
    num_key_value_heads: nullable(heads),
    attention_bias: flag(false),
  },
  alsoReads: decoderKeys,
  expected: expectedKeys,
  tokenIds: { eos: 50279, pad: 1 },
  read: (keys, raw, context) =>
    readDecoder(keys, raw, context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: keys.attention_bias,
      attentionOutputBias: keys.attention_bias,
      mlpBias: false,
      ...noWindow(keys.num_hidden_layers),
    }),
});

function layer(parts: Pick<SequentialParts, 'attention' | 'mlp'>, { norm }: LayerContext<DecoderConfig>): BranchLayer {
  const [afterAttention, afterMlp] = [norm(), norm()];
  const children = {
    self_attn: parts.attention,
    mlp: parts.mlp,
    post_attention_layernorm: afterAttention,
    post_feedforward_layernorm: afterMlp,
  };
  const leaves = { leaveAttention: through(afterAttention), leaveMlp: through(afterMlp) };
  return new BranchLayer('Olmo2DecoderLayer', children, { ...parts, ...leaves });
}

export const olmo2 = llamaFamily(config, 'Olmo2', {
  norm: { roundFirst: false },
  attention: normedAttention({ acrossHeads: true, roundFirst: false }),
  layer,
});
