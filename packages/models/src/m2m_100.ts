// M2M-100 (Fan et al. 2020, arXiv 2010.11125; transformers models/m2m_100) and NLLB-200: BART with norms before each
// part, and positions as sines and cosines, counted from pad_token_id + 1. Python leaves padding tokens in the middle
// of a text out of the count, but not in cached steps; here every token of a text counts.
import { ConfigError } from '@q/config';
import { architecture } from './architecture.js';
import { SinusoidalPositions } from './nn/sinusoidal.js';
import { bartConfig, type BartSettings } from './shared/bart-config.js';
import type { BartKind, Positions } from './shared/bart-kind.js';
import { bartFacts, bartHeads } from './shared/bart-model.js';

/** Rows of the table beside max_position_embeddings. */
const EXTRA_ROWS = 2;

const config = bartConfig(
  'm2m_100',
  {
    vocabSize: 128112,
    activation: 'relu',
    scaleEmbedding: true,
    tokenIds: { bos: 0, eos: 2, pad: 1 },
    decoderStartTokenId: 2,
    forcedEosTokenId: null,
  },
  {
    neutral: { normalize_before: [true], normalize_embedding: [false], add_final_layer_norm: [true] },
    check: ({ padTokenId, hiddenSize }, _raw, op) => {
      if (padTokenId < 0 || padTokenId >= EXTRA_ROWS)
        throw new ConfigError(op, `pad_token_id is ${padTokenId}`, {
          why: 'positions are counted from it, and the table has rows for 0 and 1',
        });
      if (hiddenSize % 2 !== 0 || hiddenSize < 4)
        throw new ConfigError(op, `d_model is ${hiddenSize}`, { why: 'must be even for sines and cosines, from 4 on' });
    },
  },
);

function positions({ maxPositionEmbeddings, hiddenSize, padTokenId }: BartSettings): Positions {
  const offset = padTokenId + 1;
  const module = new SinusoidalPositions('M2M100SinusoidalPositionalEmbedding', {
    count: maxPositionEmbeddings + EXTRA_ROWS - offset,
    width: hiddenSize,
    offset,
    zeroRow: padTokenId,
  });
  return { module, of: (pass) => module.forward(pass) };
}

const kind: BartKind = {
  classPrefix: 'M2M100',
  embeddingClass: 'M2M100ScaledWordEmbedding',
  normFirst: true,
  finalBias: false,
  positions,
};

export const m2m100 = architecture({
  config,
  heads: bartHeads(kind),
  ...bartFacts,
  ignoredTensors: [...bartFacts.ignoredTensors, /embed_positions\.weights?$/],
  noSplit: ['M2M100EncoderLayer', 'M2M100DecoderLayer'],
});
