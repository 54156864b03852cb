// Ministral 3 (Mistral AI 2025; transformers models/ministral3): Mistral with YaRN, and queries that grow with the
// logarithm of their position beyond the length of the first training, as in Llama 4.
import { ConfigError, defineModel, isPlainObject, schema, validate, type JsonObject } from '@q/config';
import type { QueryScaling } from '@q/tensor';
import { z } from 'zod';
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
import { llamaFamily } from './shared/llama-family.js';
import { size } from './shared/sizes.js';

const { nullable, real } = schema;

export interface Ministral3Config extends DecoderConfig {
  readonly queryScaling: QueryScaling;
}

/** The rotary settings of the Python class, for files that have none. */
const defaultRope = {
  rope_type: 'yarn',
  rope_theta: 1e6,
  factor: 16,
  original_max_position_embeddings: 16384,
  beta_fast: 32,
  beta_slow: 1,
  mscale_all_dim: 1,
  mscale: 1,
  llama_4_scaling_beta: 0.1,
} as const;

const scaling = z.object({
  llama_4_scaling_beta: real.min(0, { error: 'must be 0 or more' }),
  original_max_position_embeddings: size.positions,
});

/** Rotary settings without what only queries take, and that. @throws ConfigError */
function readScaling(op: string, raw: JsonObject): { usual: JsonObject; queryScaling: QueryScaling } {
  if (raw.rope_scaling !== undefined && raw.rope_scaling !== null)
    throw new ConfigError(op, 'there is a rope_scaling', { why: 'files of ministral3 have rope_parameters' });
  const given = raw.rope_parameters ?? defaultRope;
  if (!isPlainObject(given)) throw new ConfigError(op, 'rope_parameters must be an object');
  const { llama_4_scaling_beta, max_position_embeddings: _, ...rope_parameters } = given as JsonObject;
  const { original_max_position_embeddings } = rope_parameters;
  const read = validate(
    op,
    scaling,
    { llama_4_scaling_beta, original_max_position_embeddings },
    (field) => `rope ${field}`,
  );
  return {
    usual: { ...raw, rope_parameters },
    queryScaling: { beta: read.llama_4_scaling_beta, length: read.original_max_position_embeddings },
  };
}

const config = defineModel({
  modelType: 'ministral3',
  shape: {
    ...decoderShape({
      vocab_size: 131072,
      intermediate_size: 14336,
      num_hidden_layers: 34,
      head_dim: 128,
      max_position_embeddings: 262144,
      rms_norm_eps: 1e-5,
    }),
    // null means as many as query heads, a missing key 8.
    num_key_value_heads: z.nullable(heads).default(8),
    sliding_window: nullable(window),
  },
  alsoReads: decoderKeys,
  expected: [...expectedKeys, 'num_key_value_heads', 'head_dim'],
  tokenIds: { bos: 1, eos: 2, pad: 11 },
  read: (keys, raw, context): Ministral3Config => {
    const { usual, queryScaling } = readScaling(context.op, raw);
    const decoder = readDecoder(keys, usual, context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: false,
      attentionOutputBias: false,
      mlpBias: false,
      ...readWindow(context.op, keys.num_hidden_layers, null, keys.sliding_window, () => 'sliding_attention'),
    });
    return { ...decoder, queryScaling };
  },
});

export const ministral3 = llamaFamily(config, 'Ministral3', { queryScaling: ({ queryScaling }) => queryScaling });
