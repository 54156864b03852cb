// What the Gemma models share.
import { schema, UnsupportedError } from '@q/config';
import { Embedding } from '../nn/layers.js';

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
