// What the Gemma models share.
import { schema, UnsupportedError } from '@q/config';
import { Embedding } from '../nn/layers.js';
import { BranchLayer, through } from './branch-layer.js';
import type { DecoderConfig } from './decoder-config.js';
import type { SequentialParts } from './decoder-layer.js';
import type { LayerContext } from './llama-family.js';

const { flag } = schema;

/** The key `use_bidirectional_attention`. */
export const bidirectional = flag(false);

/** @throws UnsupportedError for a model that sees later tokens */
export function assertCausal(op: string, seesLater: boolean): void {
  if (!seesLater) return;
  throw new UnsupportedError(op, 'use_bidirectional_attention is true', {
    why: 'a model that sees later tokens gives embeddings, no text, and is not computed',
  });
}

/** Embeddings times sqrt(hidden size), a factor that Python keeps as a buffer. */
export const scaledEmbedding =
  (className: string) =>
  ({ vocabSize, hiddenSize }: { vocabSize: number; hiddenSize: number }): Embedding => {
    const embedding = new Embedding(vocabSize, hiddenSize, { scale: Math.fround(Math.sqrt(hiddenSize)), className });
    embedding.buffers.set('embed_scale', { shape: [], dtype: 'float32' });
    return embedding;
  };

/** Norms before and after attention and MLP. */
export function fourNormLayer(
  parts: Pick<SequentialParts, 'attention' | 'mlp'>,
  { name, norm }: LayerContext<DecoderConfig>,
): BranchLayer {
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
  return new BranchLayer(`${name}DecoderLayer`, children, { ...parts, attentionNorm, mlpNorm, ...leaves });
}
