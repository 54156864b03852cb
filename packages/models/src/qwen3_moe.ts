// Qwen 3 with routed experts (Qwen3-30B-A3B; transformers models/qwen3_moe). Against Mixtral: norms of query and key
// heads, some layers may be dense, and scores are renormalised only where the file says so.
import { defineModel, schema } from '@q/config';
import {
  decoderKeys,
  decoderShape,
  expectedKeys,
  heads,
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

const { flag, nullable, orElse } = schema;

const config = defineModel({
  modelType: 'qwen3_moe',
  shape: {
    ...decoderShape({ vocab_size: 151936, intermediate_size: 6144, max_position_embeddings: 32768 }),
    ...sparseLayerKeys({ moe_intermediate_size: 768, num_experts_per_tok: 8 }),
    hidden_size: orElse(size.hidden, 2048),
    num_hidden_layers: orElse(size.layers, 24),
    num_key_value_heads: orElse(heads, 4),
    attention_bias: flag(false),
    // Hub repositories say num_experts, transformers 5 writes the other.
    num_experts: nullable(numExperts),
    num_local_experts: nullable(numExperts),
    use_sliding_window: flag(false),
    sliding_window: nullable(window),
  },
  alsoReads: [...decoderKeys, 'max_window_layers'],
  expected: [...expectedKeys, 'num_key_value_heads', 'moe_intermediate_size', 'num_experts_per_tok'],
  read: (keys, raw, context): SparseConfig => {
    const { op } = context;
    const { num_experts, num_local_experts, num_experts_per_tok: choices, num_hidden_layers: layers } = keys;
    const count = oneOf(op, { num_experts, num_local_experts }, 128);
    assertExperts(op, choices, count, layers);
    const sliding = keys.use_sliding_window ? (keys.sliding_window ?? 4096) : null;
    const decoder = readDecoder(keys, raw, context, {
      numKvHeads: keys.num_key_value_heads,
      attentionBias: keys.attention_bias,
      attentionOutputBias: keys.attention_bias,
      mlpBias: false,
      ...readWindow(op, layers, null, sliding, () => 'sliding_attention'),
    });
    return {
      ...decoder,
      numExperts: count,
      expertSize: keys.moe_intermediate_size,
      route: { choices, kind: 'softmax', normalize: keys.norm_topk_prob },
      headNorms: true,
      sparseLayers: everyStep(layers, keys.decoder_sparse_step, keys.mlp_only_layers),
    };
  },
});

export const qwen3Moe = sparseFamily(config, {
  family: 'Qwen3Moe',
  block: sparseBlock('Qwen3Moe', { routerFirst: false }),
  checkpoint: (parameter, { expertSize }) =>
    expertSources(parameter, expertSize, (path, expert, matrix) => `${path}.${expert}.${matrix}.weight`),
});
