// Phi 3, 3.5 and 4 (Abdin et al. 2024, arXiv 2404.14219; transformers models/phi3): Llama with one product for queries,
// keys and values and one for gate and up, a window in every layer, and LongRoPE.
import { ConfigError, defineModel, isPlainObject, schema, type JsonObject } from '@q/config';
import { packedQkv } from '@q/tensor';
import { Place } from './nn/layers.js';
import { Linear } from './nn/linear.js';
import {
  decoderKeys,
  decoderShape,
  expectedKeys,
  heads,
  readDecoder,
  readWindow,
  window,
  type DecoderConfig,
} from './shared/decoder-config.js';
import { FusedGatedMlp } from './shared/fused-mlp.js';
import { llamaFamily, llamaLayer, type LayerContext } from './shared/llama-family.js';
import { SelfAttention } from './shared/self-attention.js';

const { nullable } = schema;

/** The first files call LongRoPE `yarn`; a file without the length it was trained with means 4096. */
function asLongrope(raw: JsonObject): JsonObject {
  const renamed = (settings: unknown) =>
    isPlainObject(settings)
      ? Object.fromEntries(
          Object.entries(settings).map(([key, value]) => [
            key,
            /type$/.test(key) && value === 'yarn' ? 'longrope' : value,
          ]),
        )
      : settings;
  return {
    ...raw,
    original_max_position_embeddings: raw.original_max_position_embeddings ?? 4096,
    ...(raw.rope_scaling !== undefined && { rope_scaling: renamed(raw.rope_scaling) }),
    ...(raw.rope_parameters !== undefined && { rope_parameters: renamed(raw.rope_parameters) }),
  } as JsonObject;
}

const config = defineModel({
  modelType: 'phi3',
  shape: {
    ...decoderShape({
      vocab_size: 32064,
      hidden_size: 3072,
      intermediate_size: 8192,
      max_position_embeddings: 4096,
      rms_norm_eps: 1e-5,
    }),
    num_key_value_heads: nullable(heads),
    sliding_window: nullable(window),
  },
  alsoReads: decoderKeys,
  expected: expectedKeys,
  tokenIds: { bos: 1, eos: 32000, pad: 32000 },
  read: (keys, raw, context) => {
    const numLayers = keys.num_hidden_layers;
    const decoder = readDecoder(keys, asLongrope(raw), context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: false,
      attentionOutputBias: false,
      mlpBias: false,
      ...readWindow(context.op, numLayers, null, keys.sliding_window, () => 'sliding_attention'),
    });
    const { type } = decoder.rope;
    if (type !== 'default' && type !== 'longrope')
      throw new ConfigError(context.op, `the rope type is ${type}`, { why: 'phi3 knows default and longrope' });
    return decoder;
  },
});

function attention({ settings, options }: LayerContext<DecoderConfig>): SelfAttention {
  const { hiddenSize, numHeads, numKvHeads, headDim } = settings;
  const layout = packedQkv(numHeads, numKvHeads, headDim);
  const out = new Linear(numHeads * headDim, hiddenSize);
  const qkv = new Linear(hiddenSize, layout.rowStride);
  return new SelfAttention('Phi3Attention', { o_proj: out, qkv_proj: qkv }, { qkv: [qkv], out, layout, options });
}

export const phi3 = llamaFamily(config, 'Phi3', {
  attention,
  mlp: ({ settings }) => new FusedGatedMlp('Phi3MLP', settings),
  layer: (parts, context) =>
    llamaLayer(parts, context, { resid_attn_dropout: new Place('Dropout'), resid_mlp_dropout: new Place('Dropout') }),
});
