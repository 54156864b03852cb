// T5 (Raffel et al. 2020, arXiv 1910.10683; transformers models/t5), v1.1 and Flan-T5 with gated GELU: encoder and
// decoder of pre-norm blocks. Against Llama: scores are not scaled and have a learned bias by distance, the same in all
// layers of a stack; the width of the heads is free; one table is the embedding of both stacks and, in v1.0, the head.
import { architecture } from './architecture.js';
import { t5Config } from './shared/t5-config.js';
import { t5Facts, t5Heads } from './shared/t5-model.js';

const config = t5Config(
  't5',
  { classPrefix: 'T5', biasInEveryLayer: false, scalesTied: true },
  {
    vocabSize: 32128,
    intermediateSize: 2048,
    numLayers: 6,
    numHeads: 8,
    feedForward: 'relu',
    decoderStartTokenId: null,
  },
);

export const t5 = architecture({ config, heads: t5Heads, ...t5Facts, noSplit: ['T5Block'] });
