// Qwen 1.5 and 2 with routed experts (Qwen1.5-MoE-A2.7B; transformers models/qwen2_moe). Against Qwen 3's: biases on q,
// k and v in place of norms, and an expert for all rows, times the sigmoid of a product.
import { defineModel, schema } from '@q/config';
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
import { expertSources } from './shared/experts.js';
import { oneOf, size } from './shared/sizes.js';
import {
  assertExperts,
  everyStep,
  numExperts,
  sparseBlock,
  sparseFamily,
  type SparseConfig,
} from './shared/sparse-decoder.js';
import { sparseLayerKeys } from './shared/sparse-keys.js';

const { flag, integer, nullable, orElse } = schema;

const config = defineModel({
  modelType: 'qwen2_moe',
  shape: {
    ...decoderShape({ vocab_size: 151936, intermediate_size: 5632, max_position_embeddings: 32768 }),
    ...sparseLayerKeys({ moe_intermediate_size: 1408, num_experts_per_tok: 4 }),
    hidden_size: orElse(size.hidden, 2048),
    num_hidden_layers: orElse(size.layers, 24),
    num_attention_heads: orElse(heads, 16),
    // null means as many as query heads, a missing key 16.
    num_key_value_heads: z.nullable(heads).default(16),
    qkv_bias: flag(true),
    shared_expert_intermediate_size: orElse(size.intermediate, 5632),
    num_experts: nullable(numExperts),
    num_local_experts: nullable(numExperts),
    use_sliding_window: flag(false),
    // 0 is written by files that switch the window off beside it.
    sliding_window: z.nullable(z.union([z.literal(0), window])).default(4096),
    max_window_layers: orElse(integer.min(0, { error: 'must be 0 or more' }), 28),
    layer_types: layerTypes,
  },
  alsoReads: decoderKeys,
  expected: [...expectedKeys, 'moe_intermediate_size', 'num_experts_per_tok', 'shared_expert_intermediate_size'],
  read: (keys, raw, context): SparseConfig => {
    const { op } = context;
    const { num_experts, num_local_experts, num_experts_per_tok: choices, num_hidden_layers: layers } = keys;
    const count = oneOf(op, { num_experts, num_local_experts }, 60);
    assertExperts(op, choices, count, layers);
    const sliding = keys.use_sliding_window && keys.sliding_window !== 0 ? keys.sliding_window : null;
    const decoder = readDecoder(keys, raw, context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: keys.qkv_bias,
      attentionOutputBias: false,
      mlpBias: false,
      ...readWindow(op, layers, keys.layer_types, sliding, (layer) =>
        layer % 2 === 0 && layer < keys.max_window_layers ? 'sliding_attention' : 'full_attention',
      ),
    });
    return {
      ...decoder,
      numExperts: count,
      expertSize: keys.moe_intermediate_size,
      route: { choices, kind: 'softmax', normalize: keys.norm_topk_prob },
      sharedExpertSize: keys.shared_expert_intermediate_size,
      headNorms: false,
      sparseLayers: everyStep(layers, keys.decoder_sparse_step, keys.mlp_only_layers),
    };
  },
});

export const qwen2Moe = sparseFamily(config, {
  family: 'Qwen2Moe',
  block: sparseBlock('Qwen2Moe', { routerFirst: true }),
  checkpoint: (parameter, { expertSize }) =>
    expertSources(parameter, expertSize, (path, expert, matrix) => `${path}.${expert}.${matrix}.weight`),
});
