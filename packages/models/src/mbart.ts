// mBART (Liu et al. 2020, arXiv 2001.08210; transformers models/mbart), mBART-50: BART with norms before each part and
// a last one behind each stack, beside the one on the embeddings.
import { architecture } from './architecture.js';
import { bartConfig } from './shared/bart-config.js';
import { learnedPositions, type BartKind } from './shared/bart-kind.js';
import { bartFacts, bartHeads } from './shared/bart-model.js';

const config = bartConfig(
  'mbart',
  { tokenIds: { bos: 0, eos: 2, pad: 1 }, decoderStartTokenId: null, forcedEosTokenId: 2 },
  { neutral: { normalize_before: [true], normalize_embedding: [true], add_final_layer_norm: [true] } },
);

const kind: BartKind = {
  classPrefix: 'MBart',
  embeddingClass: 'MBartScaledWordEmbedding',
  normFirst: true,
  embeddingNorm: 'sum',
  finalBias: true,
  positions: learnedPositions('MBartLearnedPositionalEmbedding', 2),
};

export const mbart = architecture({
  config,
  heads: bartHeads(kind),
  ...bartFacts,
  noSplit: ['MBartDecoderLayer', 'MBartEncoderLayer', 'MBartAttention'],
});
