// PEGASUS (Zhang et al. 2019, arXiv 1912.08777; transformers models/pegasus): BART with norms before each part and a
// last one behind each stack, positions as sines and cosines, and without a norm on the embeddings.
import { architecture } from './architecture.js';
import { bartConfig } from './shared/bart-config.js';
import { sinusoidalTable, type BartKind } from './shared/bart-kind.js';
import { bartFacts, bartHeads } from './shared/bart-model.js';

const config = bartConfig(
  'pegasus',
  { tokenIds: { eos: 1, pad: 0 }, decoderStartTokenId: 0, forcedEosTokenId: 1 },
  {
    neutral: { normalize_before: [true], normalize_embedding: [false], add_final_layer_norm: [true] },
    alsoReads: ['static_position_embeddings'],
  },
);

const kind: BartKind = {
  classPrefix: 'Pegasus',
  normFirst: true,
  finalBias: true,
  positions: sinusoidalTable('PegasusSinusoidalPositionalEmbedding'),
};

export const pegasus = architecture({ config, heads: bartHeads(kind), ...bartFacts, noSplit: [] });
