// Sizes as GPT-2's config.json spells them. Its Python class and those that follow it take the usual spellings too
// (`attribute_map`).
import { schema } from '@q/config';
import type { z } from 'zod';
import { headDimOf, oneOf, size } from './sizes.js';

const { nullable } = schema;

export const gpt2Sizes = {
  n_embd: nullable(size.hidden),
  hidden_size: nullable(size.hidden),
  n_layer: nullable(size.layers),
  num_hidden_layers: nullable(size.layers),
  n_head: nullable(size.heads),
  num_attention_heads: nullable(size.heads),
  n_positions: nullable(size.positions),
  max_position_embeddings: nullable(size.positions),
  n_inner: nullable(size.intermediate),
};

/** Keys of files of GPT-2's time that these classes do not read: the length again, and heads of other tasks. */
export const gpt2AlsoReads = [
  'n_ctx',
  'summary_activation',
  'summary_first_dropout',
  'summary_proj_to_labels',
  'summary_type',
  'summary_use_proj',
] as const;

/** What a Python class takes for sizes that a file does not give. */
export interface Gpt2Defaults {
  readonly n_embd: number;
  readonly n_layer: number;
  readonly n_head: number;
  readonly n_positions: number;
}

export interface Gpt2Sizes {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly headDim: number;
  readonly maxPositionEmbeddings: number;
}

/** @throws ConfigError where two spellings differ, and for heads that do not share the width evenly */
export function readGpt2Sizes(
  op: string,
  keys: z.output<z.ZodObject<typeof gpt2Sizes>>,
  defaults: Gpt2Defaults,
): Gpt2Sizes {
  const { n_embd, hidden_size, n_layer, num_hidden_layers, n_head, num_attention_heads } = keys;
  const { n_positions, max_position_embeddings } = keys;
  const hiddenSize = oneOf(op, { n_embd, hidden_size }, defaults.n_embd);
  const numHeads = oneOf(op, { n_head, num_attention_heads }, defaults.n_head);
  return {
    hiddenSize,
    intermediateSize: keys.n_inner ?? 4 * hiddenSize,
    numLayers: oneOf(op, { n_layer, num_hidden_layers }, defaults.n_layer),
    numHeads,
    headDim: headDimOf(op, ['n_head', numHeads], ['n_embd', hiddenSize]),
    maxPositionEmbeddings: oneOf(op, { n_positions, max_position_embeddings }, defaults.n_positions),
  };
}
