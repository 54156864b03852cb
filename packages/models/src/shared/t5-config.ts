// The config.json of T5, mT5 and umT5.
import { ConfigError, defineModel, schema } from '@q/config';
import { activation, type Activation } from './activation.js';
import { assertLayers, assertPlausible, size } from './sizes.js';

const { flag, nullable, orElse, sizeUpTo, text } = schema;

/** What differs between the architectures. */
export interface T5Kind {
  /** What the names of the Python classes begin with. */
  readonly classPrefix: string;
  /** Every layer of a stack has a bias of its own; else the first one's is that of all. */
  readonly biasInEveryLayer: boolean;
  /** Whether tied models read the decoder's output times hiddenSize^-0.5, where the file does not say. */
  readonly scalesTied: boolean;
}

/** Values of keys that a file lacks, as in the Python class. */
interface T5Defaults {
  readonly vocabSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly feedForward: string;
  readonly decoderStartTokenId: number | null;
}

/** Settings of a T5. Sizes are in elements. */
export interface T5Settings extends Pick<T5Kind, 'classPrefix' | 'biasInEveryLayer'> {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numDecoderLayers: number;
  readonly numHeads: number;
  readonly headDim: number;
  readonly relativeAttentionNumBuckets: number;
  readonly relativeAttentionMaxDistance: number;
  readonly rmsNormEps: number;
  readonly hiddenAct: Activation;
  /** Whether the activation gates a second product. */
  readonly gated: boolean;
  /** Whether the head uses the embedding. */
  readonly tieWordEmbeddings: boolean;
  /** Whether the head reads the decoder's output times hiddenSize^-0.5. */
  readonly scaleDecoderOutputs: boolean;
  /** Whether there is an encoder only. */
  readonly encoderOnly: boolean;
  readonly decoderStartTokenId: number | null;
}

/** Distances beyond this are no distances: published ones have 128. */
const MAX_DISTANCE = 2 ** 15;

/** How the config.json of one of them is read. */
export const t5Config = <M extends string>(modelType: M, kind: T5Kind, defaults: T5Defaults) =>
  defineModel({
    modelType,
    shape: {
      vocab_size: orElse(size.vocab, defaults.vocabSize),
      d_model: orElse(size.hidden, 512),
      d_kv: orElse(size.headDim, 64),
      d_ff: orElse(size.intermediate, defaults.intermediateSize),
      num_layers: orElse(size.layers, defaults.numLayers),
      num_decoder_layers: nullable(size.layers),
      num_heads: orElse(size.heads, defaults.numHeads),
      relative_attention_num_buckets: orElse(sizeUpTo(MAX_DISTANCE), 32),
      relative_attention_max_distance: orElse(sizeUpTo(MAX_DISTANCE), 128),
      layer_norm_epsilon: orElse(size.normEps, 1e-6),
      feed_forward_proj: orElse(text, defaults.feedForward),
      dense_act_fn: nullable(text),
      is_gated_act: nullable(schema.flag(false)),
      tie_word_embeddings: flag(true),
      scale_decoder_outputs: nullable(schema.flag(true)),
      is_encoder_decoder: flag(true),
      decoder_start_token_id: nullable(schema.integer),
    },
    expected: ['vocab_size', 'd_model', 'd_kv', 'd_ff', 'num_layers', 'num_heads', 'feed_forward_proj'],
    tokenIds: { eos: 1, pad: 0 },
    followsTies: ({ scaleDecoderOutputs }: T5Settings) => ({ scale_decoder_outputs: scaleDecoderOutputs }),
    read: (keys, raw, { op }): T5Settings => {
      const numDecoderLayers = keys.num_decoder_layers ?? keys.num_layers;
      assertLayers(op, { num_layers: keys.num_layers, num_decoder_layers: numDecoderLayers });
      checkBuckets(op, keys.relative_attention_num_buckets, keys.relative_attention_max_distance);
      const { vocab_size, d_model, d_ff } = keys;
      const layer = d_model * (4 * keys.num_heads * keys.d_kv + 3 * d_ff);
      const parameters = 2 * vocab_size * d_model + (keys.num_layers + 2 * numDecoderLayers) * layer;
      assertPlausible(op, parameters, { vocab_size, d_model, d_ff });
      const { classPrefix, biasInEveryLayer, scalesTied } = kind;
      return {
        classPrefix,
        biasInEveryLayer,
        vocabSize: keys.vocab_size,
        hiddenSize: keys.d_model,
        intermediateSize: keys.d_ff,
        numLayers: keys.num_layers,
        numDecoderLayers,
        numHeads: keys.num_heads,
        headDim: keys.d_kv,
        relativeAttentionNumBuckets: keys.relative_attention_num_buckets,
        relativeAttentionMaxDistance: keys.relative_attention_max_distance,
        rmsNormEps: keys.layer_norm_epsilon,
        ...readFeedForward(op, keys.feed_forward_proj, keys.dense_act_fn, keys.is_gated_act),
        tieWordEmbeddings: keys.tie_word_embeddings,
        // Files before transformers 5 say it with the ties.
        scaleDecoderOutputs: keys.scale_decoder_outputs ?? (scalesTied && keys.tie_word_embeddings),
        encoderOnly: !keys.is_encoder_decoder || [raw.architectures].flat()[0] === `${classPrefix}EncoderModel`,
        decoderStartTokenId: keys.decoder_start_token_id ?? defaults.decoderStartTokenId,
      };
    },
  });

/** `gated-gelu` and the like; what a file says of its parts wins, as in Python. @throws ConfigError */
function readFeedForward(
  op: string,
  projection: string,
  stated: string | null,
  gated: boolean | null,
): Pick<T5Settings, 'hiddenAct' | 'gated'> {
  const [, gate, name] = /^(gated-)?([^-]+)$/.exec(projection) ?? [];
  // The gated GELU of T5 is the approximation by tanh, under the name of the exact one.
  const parsed = activation.safeParse(stated ?? (projection === 'gated-gelu' ? 'gelu_new' : name));
  if (name !== undefined && parsed.success) return { hiddenAct: parsed.data, gated: gated ?? gate !== undefined };
  const [key, value] =
    stated === null || name === undefined ? ['feed_forward_proj', projection] : ['dense_act_fn', stated];
  throw new ConfigError(op, `${key} is ${JSON.stringify(value)}`, {
    why: parsed.success ? 'it must be an activation function, or gated- and one' : parsed.error.issues[0].message,
  });
}

/** Both halves of the buckets, and the logarithms of the far half, must be there. */
function checkBuckets(op: string, buckets: number, maxDistance: number): void {
  if (buckets < 4)
    throw new ConfigError(op, `relative_attention_num_buckets is ${buckets}`, { why: 'must be at least 4' });
  if (maxDistance <= Math.floor(buckets / 2))
    throw new ConfigError(op, `relative_attention_max_distance is ${maxDistance}`, {
      why: `must be more than half of the ${buckets} buckets`,
    });
}
