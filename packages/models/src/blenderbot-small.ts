// BlenderBot 90M (Roller et al. 2020, arXiv 2004.13637; transformers models/blenderbot_small): BART with learned
// positions from row 0, which the decoder adds behind the norm on the embeddings.
import { architecture } from './architecture.js';
import { bartConfig } from './shared/bart-config.js';
import { learnedPositions, type BartKind } from './shared/bart-kind.js';
import { bartFacts, bartHeads } from './shared/bart-model.js';

const config = bartConfig(
  'blenderbot-small',
  {
    hiddenSize: 512,
    layers: 8,
    ffnDim: 2048,
    positions: 512,
    tokenIds: { bos: 1, eos: 2, pad: 0 },
    decoderStartTokenId: 1,
    forcedEosTokenId: 2,
  },
  {
    neutral: { normalize_before: [false], normalize_embedding: [true], add_final_layer_norm: [false] },
    alsoReads: ['layernorm_variant', 'do_blenderbot_90_layernorm'],
  },
);

const kind: BartKind = {
  classPrefix: 'BlenderbotSmall',
  normFirst: false,
  embeddingNorm: 'decoder tokens',
  finalBias: true,
  positions: learnedPositions('BlenderbotSmallLearnedPositionalEmbedding', 0),
};

export const blenderbotSmall = architecture({ config, heads: bartHeads(kind), ...bartFacts, noSplit: [] });
