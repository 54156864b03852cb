// The config.json of BART and its relatives.
import { defineModel, schema, UnsupportedError, type JsonObject, type JsonValue } from '@q/config';
import { activation, activationClass, type Activation } from './activation.js';
import { assertLayers, assertPlausible, headDimOf, oneOf, size } from './sizes.js';

const { flag, idOrIds, integer, nullable, orElse } = schema;

/** Settings of one of them. Sizes are in elements. */
export interface BartSettings {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly maxPositionEmbeddings: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly intermediateSize: number;
  readonly numDecoderLayers: number;
  readonly numDecoderHeads: number;
  readonly decoderIntermediateSize: number;
  readonly hiddenAct: Activation;
  /** Python's class of it. */
  readonly activationClass: string;
  /** Whether token vectors are multiplied by the root of hiddenSize. */
  readonly scaleEmbedding: boolean;
  /** Whether the head uses the embedding. */
  readonly tieWordEmbeddings: boolean;
  readonly padTokenId: number;
  readonly decoderStartTokenId: number | null;
  readonly forcedBosTokenId: number | null;
  readonly forcedEosTokenId: number | readonly number[] | null;
}

/** What the Python classes say of keys that a file lacks. */
interface BartDefaults {
  readonly vocabSize?: number;
  readonly hiddenSize?: number;
  readonly layers?: number;
  readonly ffnDim?: number;
  readonly positions?: number;
  readonly activation?: Activation;
  readonly scaleEmbedding?: boolean;
  readonly tokenIds: { readonly bos?: number; readonly eos: number; readonly pad: number };
  readonly decoderStartTokenId: number | null;
  readonly forcedEosTokenId: number | null;
}

interface BartConfigOptions {
  /** Keys of the first files that say what the architecture does anyway. */
  readonly neutral?: Readonly<Record<string, readonly JsonValue[]>>;
  readonly alsoReads?: readonly string[];
  /** Rules of its own. @throws ConfigError, UnsupportedError */
  check?(settings: BartSettings, raw: JsonObject, op: string): void;
}

/** How the config.json of one of them is read. */
export function bartConfig<M extends string>(modelType: M, defaults: BartDefaults, options: BartConfigOptions = {}) {
  const { vocabSize = 50265, hiddenSize = 1024, layers = 12, ffnDim = 4096, positions = 1024 } = defaults;
  return defineModel({
    modelType,
    shape: {
      vocab_size: orElse(size.vocab, vocabSize),
      max_position_embeddings: orElse(size.positions, positions),
      d_model: nullable(size.hidden),
      encoder_layers: nullable(size.layers),
      encoder_ffn_dim: orElse(size.intermediate, ffnDim),
      encoder_attention_heads: nullable(size.heads),
      decoder_layers: orElse(size.layers, layers),
      decoder_ffn_dim: orElse(size.intermediate, ffnDim),
      decoder_attention_heads: orElse(size.heads, 16),
      // Other names of d_model, encoder_layers and encoder_attention_heads (`attribute_map` of the Python classes).
      hidden_size: nullable(size.hidden),
      num_hidden_layers: nullable(size.layers),
      num_attention_heads: nullable(size.heads),
      activation_function: orElse(activation, defaults.activation ?? 'gelu'),
      scale_embedding: flag(defaults.scaleEmbedding ?? false),
      tie_word_embeddings: flag(true),
      is_encoder_decoder: flag(true),
      pad_token_id: orElse(integer, defaults.tokenIds.pad),
      decoder_start_token_id: orElse(nullable(integer), defaults.decoderStartTokenId),
      forced_bos_token_id: nullable(integer),
      forced_eos_token_id: nullable(idOrIds),
    },
    alsoReads: ['extra_pos_embeddings', 'add_bias_logits', ...(options.alsoReads ?? [])],
    neutral: options.neutral,
    expected: ['vocab_size', 'encoder_ffn_dim', 'decoder_layers', 'decoder_ffn_dim', 'decoder_attention_heads'],
    tokenIds: defaults.tokenIds,
    read: (keys, raw: JsonObject, { op }): BartSettings => {
      const { d_model, hidden_size, encoder_layers, num_hidden_layers } = keys;
      const { encoder_attention_heads, num_attention_heads } = keys;
      const forcesEos = Object.hasOwn(raw, 'forced_eos_token_id');
      const settings: BartSettings = {
        vocabSize: keys.vocab_size,
        hiddenSize: oneOf(op, { d_model, hidden_size }, hiddenSize),
        maxPositionEmbeddings: keys.max_position_embeddings,
        numLayers: oneOf(op, { encoder_layers, num_hidden_layers }, layers),
        numHeads: oneOf(op, { encoder_attention_heads, num_attention_heads }, 16),
        intermediateSize: keys.encoder_ffn_dim,
        numDecoderLayers: keys.decoder_layers,
        numDecoderHeads: keys.decoder_attention_heads,
        decoderIntermediateSize: keys.decoder_ffn_dim,
        hiddenAct: keys.activation_function,
        activationClass: activationClass((raw.activation_function as string | null) ?? defaults.activation ?? 'gelu'),
        scaleEmbedding: keys.scale_embedding,
        tieWordEmbeddings: keys.tie_word_embeddings,
        padTokenId: keys.pad_token_id,
        decoderStartTokenId: keys.decoder_start_token_id,
        forcedBosTokenId: keys.forced_bos_token_id,
        forcedEosTokenId: forcesEos ? keys.forced_eos_token_id : defaults.forcedEosTokenId,
      };
      assertEncoderDecoder(op, keys.is_encoder_decoder);
      checkSizes(op, settings);
      options.check?.(settings, raw, op);
      return settings;
    },
  });
}

/** @throws UnsupportedError */
function assertEncoderDecoder(op: string, isEncoderDecoder: boolean): void {
  if (isEncoderDecoder) return;
  throw new UnsupportedError(op, 'is_encoder_decoder is false', {
    why: 'the decoder without its encoder is not supported',
  });
}

/** @throws ConfigError for heads that do not share the width evenly, and for sizes that no model has */
function checkSizes(op: string, settings: BartSettings): void {
  const { vocabSize, hiddenSize, maxPositionEmbeddings, numLayers, numDecoderLayers } = settings;
  const { intermediateSize, decoderIntermediateSize } = settings;
  assertLayers(op, { encoder_layers: numLayers, decoder_layers: numDecoderLayers });
  headDimOf(op, ['encoder_attention_heads', settings.numHeads], ['d_model', hiddenSize]);
  headDimOf(op, ['decoder_attention_heads', settings.numDecoderHeads], ['d_model', hiddenSize]);
  const encoder = numLayers * hiddenSize * (4 * hiddenSize + 2 * intermediateSize);
  const decoder = numDecoderLayers * hiddenSize * (8 * hiddenSize + 2 * decoderIntermediateSize);
  const tables = 2 * hiddenSize * (vocabSize + maxPositionEmbeddings);
  assertPlausible(op, encoder + decoder + tables, {
    vocab_size: vocabSize,
    d_model: hiddenSize,
    encoder_layers: numLayers,
    decoder_layers: numDecoderLayers,
  });
}
