import { ConfigError, UnsupportedError } from '@q/config';
import { describe, expect, it } from 'vitest';
import { buildModel, parseModelConfig, tiesOf } from './registry.js';
import { plainSinusoids } from './nn/sinusoidal-table.js';
import type { BartSettings } from './shared/bart-config.js';
import { parameterSlots } from './slots.js';
import { planTree } from './tree.js';

const parse = (changes: object = {}) => {
  const sizes = { d_model: 16, encoder_attention_heads: 2, decoder_attention_heads: 2, vocab_size: 50 };
  const layers = { encoder_layers: 1, decoder_layers: 1, encoder_ffn_dim: 8, decoder_ffn_dim: 8 };
  const config = parseModelConfig({ model_type: 'bart', ...sizes, ...layers, ...changes });
  return config as typeof config & BartSettings;
};

describe('config.json', () => {
  it.each([
    ['bart', 50265, 1024, 12, 'gelu', false, 2, 2],
    ['mbart', 50265, 1024, 12, 'gelu', false, null, 2],
    ['m2m_100', 128112, 1024, 12, 'relu', true, 2, null],
    ['marian', 58101, 1024, 12, 'gelu', false, 58100, 0],
    ['pegasus', 50265, 1024, 12, 'gelu', false, 0, 1],
    ['blenderbot-small', 50265, 512, 8, 'gelu', false, 1, 2],
  ])(
    '%s has the defaults of the Python class',
    (model_type, vocabSize, hiddenSize, layers, hiddenAct, scale, ...ids) => {
      const [decoderStartTokenId, forcedEosTokenId] = ids;
      expect(parseModelConfig({ model_type })).toMatchObject({
        vocabSize,
        hiddenSize,
        numLayers: layers,
        numDecoderLayers: layers,
        numHeads: 16,
        numDecoderHeads: 16,
        hiddenAct,
        scaleEmbedding: scale,
        tieWordEmbeddings: true,
        decoderStartTokenId,
        forcedBosTokenId: null,
        forcedEosTokenId,
      });
    },
  );

  it('has sizes under the names that all classes share', () => {
    const names = { num_hidden_layers: 1, num_attention_heads: 2, hidden_size: 16 };
    expect(parse(names)).toMatchObject({ numLayers: 1, numHeads: 2, hiddenSize: 16 });
    expect(() => parse({ num_hidden_layers: 3 })).toThrow(/encoder_layers is 1 and num_hidden_layers is 3/);
  });

  it('takes what first files say of the architecture, and refuses another one', () => {
    const facts = { normalize_before: false, add_final_layer_norm: false, normalize_embedding: true };
    expect(parse(facts).warnings.map(({ code }) => code)).toEqual(['unknown_key', 'unknown_key', 'unknown_key']);
    expect(() => parse({ ...facts, normalize_before: true })).toThrow(/normalize_before/);
  });

  it.each([
    [{ encoder_attention_heads: 3 }, ConfigError, /encoder_attention_heads is 3/],
    [{ decoder_attention_heads: 5 }, ConfigError, /decoder_attention_heads is 5/],
    [{ is_encoder_decoder: false }, UnsupportedError, /is_encoder_decoder is false/],
    [{ model_type: 'marian', share_encoder_decoder_embeddings: false }, UnsupportedError, /share_encoder_decoder/],
    [{ model_type: 'marian', decoder_vocab_size: 51 }, ConfigError, /decoder_vocab_size is 51/],
    [{ model_type: 'm2m_100', pad_token_id: 2 }, ConfigError, /pad_token_id is 2/],
    [{ activation_function: 'squash' }, ConfigError, /activation_function/],
  ])('%j is refused', (keys, kind, message) => {
    expect(() => parse(keys)).toThrow(kind);
    expect(() => parse(keys)).toThrow(message);
  });
});

it('shares one table, with and without a head', () => {
  const tiedIn = (task: 'seq2seqLM' | 'base') =>
    parameterSlots(buildModel(parse(), task), tiesOf(parse())).flatMap(({ name, tiedTo }) => (tiedTo ? [name] : []));
  const tables = ['encoder.embed_tokens.weight', 'decoder.embed_tokens.weight'];
  expect(tiedIn('base')).toEqual(tables);
  expect(tiedIn('seq2seqLM')).toEqual([...tables.map((name) => `model.${name}`), 'lm_head.weight']);
});

it('has the bias of the logits as a buffer', () => {
  const [[, , parameters, buffers]] = planTree(parse()).modules;
  expect(parameters).toEqual([]);
  expect(buffers).toEqual([['final_logits_bias', [1, 50], 'float32', true]]);
});

it('computes sines, then cosines', () => {
  const table = plainSinusoids(3, 4);
  const expected = [0, 1, 2].flatMap((p) => [Math.sin(p), Math.sin(p / 100), Math.cos(p), Math.cos(p / 100)]);
  expect([...table]).toEqual(expected.map(Math.fround));
});
