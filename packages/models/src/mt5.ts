// mT5 (Xue et al. 2021, arXiv 2010.11934; transformers models/mt5): T5 v1.1 for many languages. Released files have a
// head of their own. Python 5 ties it whatever config.json says and goes back where the values differ; here config.json
// and the values decide. The decoder's output is not scaled.
import { architecture } from './architecture.js';
import { t5Config } from './shared/t5-config.js';
import { t5Facts, t5Heads } from './shared/t5-model.js';

const config = t5Config(
  'mt5',
  { classPrefix: 'MT5', biasInEveryLayer: false, scalesTied: false },
  {
    vocabSize: 250112,
    intermediateSize: 1024,
    numLayers: 8,
    numHeads: 6,
    feedForward: 'gated-gelu',
    decoderStartTokenId: 0,
  },
);

export const mt5 = architecture({ config, heads: t5Heads, ...t5Facts, noSplit: ['MT5Block'] });
