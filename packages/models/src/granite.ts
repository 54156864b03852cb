// Granite 3 (IBM 2024; transformers models/granite): Llama with factors on embeddings, scores, what attention and MLP
// add, and logits.
import { defineModel, schema } from '@q/config';
import { Embedding } from './nn/layers.js';
import { BranchLayer, times } from './shared/branch-layer.js';
import {
  decoderKeys,
  decoderShape,
  expectedKeys,
  heads,
  noWindow,
  positive,
  readDecoder,
  type DecoderConfig,
} from './shared/decoder-config.js';
import type { SequentialParts } from './shared/decoder-layer.js';
import { llamaFamily, type LayerContext } from './shared/llama-family.js';

const { flag, nullable, orElse, real } = schema;

export interface GraniteConfig extends DecoderConfig {
  readonly embeddingMultiplier: number;
  /** In place of 1 / sqrt(headDim). */
  readonly attentionMultiplier: number;
  readonly residualMultiplier: number;
  /** Logits are divided by it. */
  readonly logitsScaling: number;
}

const config = defineModel({
  modelType: 'granite',
  shape: {
    ...decoderShape({ vocab_size: 32000, intermediate_size: 11008, max_position_embeddings: 2048 }),
    num_key_value_heads: nullable(heads),
    attention_bias: flag(false),
    mlp_bias: flag(false),
    embedding_multiplier: orElse(real, 1),
    attention_multiplier: orElse(real, 1),
    residual_multiplier: orElse(real, 1),
    logits_scaling: orElse(positive, 1),
  },
  alsoReads: decoderKeys,
  expected: expectedKeys,
  tokenIds: { bos: 1, eos: 2 },
  read: (keys, raw, context): GraniteConfig => ({
    ...readDecoder(keys, raw, context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: keys.attention_bias,
      attentionOutputBias: keys.attention_bias,
      mlpBias: keys.mlp_bias,
      ...noWindow(keys.num_hidden_layers),
    }),
    embeddingMultiplier: keys.embedding_multiplier,
    attentionMultiplier: keys.attention_multiplier,
    residualMultiplier: keys.residual_multiplier,
    logitsScaling: keys.logits_scaling,
  }),
});

function layer(
  parts: Pick<SequentialParts, 'attention' | 'mlp'>,
  { norm, settings }: LayerContext<GraniteConfig>,
): BranchLayer {
  const [attentionNorm, mlpNorm] = [norm(), norm()];
  const children = {
    self_attn: parts.attention,
    mlp: parts.mlp,
    input_layernorm: attentionNorm,
    post_attention_layernorm: mlpNorm,
  };
  const leave = times(settings.residualMultiplier);
  return new BranchLayer('GraniteDecoderLayer', children, {
    ...parts,
    attentionNorm,
    mlpNorm,
    leaveAttention: leave,
    leaveMlp: leave,
  });
}

export const granite = llamaFamily(config, 'Granite', {
  embedding: ({ vocabSize, hiddenSize, embeddingMultiplier: scale }) => new Embedding(vocabSize, hiddenSize, { scale }),
  scores: ({ attentionMultiplier: scale }) => ({ scale }),
  layer,
  logits: ({ logitsScaling }) => ({ logitScale: 1 / logitsScaling }),
});
