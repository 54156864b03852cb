// BART (Lewis et al. 2019, arXiv 1910.13461; transformers models/bart): encoder-decoder with norms behind each part and
// on the embeddings, learned positions that begin at row 2, and a bias of the logits.
import { architecture } from './architecture.js';
import { bartConfig } from './shared/bart-config.js';
import { learnedPositions, type BartKind } from './shared/bart-kind.js';
import { bartFacts, bartHeads } from './shared/bart-model.js';

const config = bartConfig(
  'bart',
  { tokenIds: { bos: 0, eos: 2, pad: 1 }, decoderStartTokenId: 2, forcedEosTokenId: 2 },
  { neutral: { normalize_before: [false], normalize_embedding: [true], add_final_layer_norm: [false] } },
);

const kind: BartKind = {
  classPrefix: 'Bart',
  embeddingClass: 'BartScaledWordEmbedding',
  normFirst: false,
  embeddingNorm: 'sum',
  finalBias: true,
  positions: learnedPositions('BartLearnedPositionalEmbedding', 2),
};

export const bart = architecture({
  config,
  heads: bartHeads(kind),
  ...bartFacts,
  noSplit: ['BartEncoderLayer', 'BartDecoderLayer'],
});
