// Keys of configs with routed experts, with what Qwen's classes take where a file has none.
import { MAX_LAYERS, schema } from '@q/config';
import { size } from './sizes.js';
import { numChoices } from './sparse-decoder.js';

const { flag, integer, listOf, orElse } = schema;

export const sparseLayerKeys = (defaults: { moe_intermediate_size: number; num_experts_per_tok: number }) => ({
  moe_intermediate_size: orElse(size.intermediate, defaults.moe_intermediate_size),
  num_experts_per_tok: orElse(numChoices, defaults.num_experts_per_tok),
  norm_topk_prob: flag(false),
  decoder_sparse_step: orElse(size.layers, 1),
  /** Layers without experts. */
  mlp_only_layers: orElse(listOf(integer, 'must be a list of layers', MAX_LAYERS), []),
});
