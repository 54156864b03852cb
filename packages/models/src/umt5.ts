// umT5 (Chung et al. 2023, arXiv 2304.09151; transformers models/umt5): mT5 with a bias by distance in every layer. As
// in transformers 4, the decoder's output is scaled where config.json ties the head (no released file does); 5.17 takes
// all of them as tied, and scales.
import { architecture } from './architecture.js';
import { t5Config } from './shared/t5-config.js';
import { t5Facts, t5Heads } from './shared/t5-model.js';

const config = t5Config(
  'umt5',
  { classPrefix: 'UMT5', biasInEveryLayer: true, scalesTied: true },
  {
    vocabSize: 250112,
    intermediateSize: 1024,
    numLayers: 8,
    numHeads: 6,
    feedForward: 'gated-gelu',
    decoderStartTokenId: 0,
  },
);

export const umt5 = architecture({ config, heads: t5Heads, ...t5Facts, noSplit: ['UMT5Block'] });
