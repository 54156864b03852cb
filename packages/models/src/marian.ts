// Marian (Junczys-Dowmunt et al. 2018, arXiv 1804.00344; transformers models/marian), OPUS-MT: BART with positions as
// sines and cosines, which released files hold and transformers 5 leaves out, and without a norm on the embeddings.
import { ConfigError, show, UnsupportedError } from '@q/config';
import { architecture } from './architecture.js';
import { bartConfig } from './shared/bart-config.js';
import { sinusoidalTable, type BartKind } from './shared/bart-kind.js';
import { bartFacts, bartHeads } from './shared/bart-model.js';

const config = bartConfig(
  'marian',
  { vocabSize: 58101, tokenIds: { eos: 0, pad: 58100 }, decoderStartTokenId: 58100, forcedEosTokenId: 0 },
  {
    neutral: { normalize_before: [false], normalize_embedding: [false], add_final_layer_norm: [false] },
    alsoReads: ['share_encoder_decoder_embeddings', 'decoder_vocab_size', 'static_position_embeddings'],
    check: ({ vocabSize }, raw, op) => {
      const { share_encoder_decoder_embeddings: shared = true, decoder_vocab_size: decoderVocab = null } = raw;
      if (shared !== true)
        throw new UnsupportedError(op, `share_encoder_decoder_embeddings is ${show(shared)}`, {
          why: 'only models whose encoder and decoder share one embedding are supported',
        });
      if (decoderVocab !== null && decoderVocab !== 0 && decoderVocab !== vocabSize)
        throw new ConfigError(op, `decoder_vocab_size is ${show(decoderVocab)} and vocab_size ${vocabSize}`, {
          why: 'encoder and decoder share one embedding',
        });
    },
  },
);

const kind: BartKind = {
  classPrefix: 'Marian',
  headClass: 'MarianMTModel',
  normFirst: false,
  finalBias: true,
  positions: sinusoidalTable('MarianSinusoidalPositionalEmbedding'),
};

export const marian = architecture({ config, heads: bartHeads(kind), ...bartFacts, noSplit: [] });
