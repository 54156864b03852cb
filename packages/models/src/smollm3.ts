// SmolLM 3 (Hugging Face 2025; transformers models/smollm3): Llama in which every fourth layer has no rotary positions
// (Yang et al. 2025, arXiv 2501.18795).
import { ConfigError, defineModel, MAX_LAYERS, schema } from '@q/config';
import { z } from 'zod';
import {
  decoderKeys,
  decoderShape,
  expectedKeys,
  heads,
  layerTypes,
  readDecoder,
  readWindow,
  window,
  type DecoderConfig,
} from './shared/decoder-config.js';
import { llamaFamily } from './shared/llama-family.js';

const { flag, integer, listOf, nullable, orElse } = schema;

export interface SmolLM3Config extends DecoderConfig {
  /** Whether each layer rotates queries and keys. */
  readonly rotates: readonly boolean[];
}

/** @throws ConfigError for a list that does not cover the layers */
function readRotating(op: string, numLayers: number, listed: readonly (0 | 1)[] | null, interval: number): boolean[] {
  if (listed === null) return Array.from({ length: numLayers }, (_, layer) => (layer + 1) % interval !== 0);
  if (listed.length < numLayers)
    throw new ConfigError(op, `no_rope_layers has ${listed.length} entries`, {
      why: `must have one per layer (${numLayers}): 1 with rotary positions, 0 without`,
    });
  return listed.slice(0, numLayers).map((entry) => entry === 1);
}

const config = defineModel({
  modelType: 'smollm3',
  shape: {
    ...decoderShape({
      vocab_size: 128256,
      hidden_size: 2048,
      intermediate_size: 11008,
      num_hidden_layers: 36,
      num_attention_heads: 16,
      max_position_embeddings: 32768,
      tie_word_embeddings: true,
    }),
    // null means as many as query heads, a missing key 4.
    num_key_value_heads: z.nullable(heads).default(4),
    attention_bias: flag(false),
    mlp_bias: flag(false),
    use_sliding_window: flag(false),
    sliding_window: nullable(window),
    layer_types: layerTypes,
    no_rope_layers: nullable(
      listOf(
        z.union([z.literal(0), z.literal(1)], { error: 'must be 0 or 1' }),
        'must be a list of 0 and 1',
        MAX_LAYERS,
      ),
    ),
    no_rope_layer_interval: orElse(integer.min(1, { error: 'must be 1 or more' }), 4),
  },
  alsoReads: decoderKeys,
  expected: [...expectedKeys, 'num_key_value_heads'],
  tokenIds: { bos: 128000, eos: 128001, pad: 128004 },
  read: (keys, raw, context): SmolLM3Config => {
    const { op } = context;
    const { num_hidden_layers: numLayers, layer_types: listed, use_sliding_window: maySlide } = keys;
    const rotates = readRotating(op, numLayers, keys.no_rope_layers, keys.no_rope_layer_interval);
    const rest = {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: keys.attention_bias,
      attentionOutputBias: keys.attention_bias,
      mlpBias: keys.mlp_bias,
      ...readWindow(op, numLayers, listed, keys.sliding_window, (layer) =>
        maySlide && !rotates[layer] ? 'sliding_attention' : 'full_attention',
      ),
    };
    return { ...readDecoder(keys, raw, context, rest, { theta: 2e6 }), rotates };
  },
});

export const smollm3 = llamaFamily(config, 'SmolLM3', { rotates: ({ rotates }, layer) => rotates[layer] });
