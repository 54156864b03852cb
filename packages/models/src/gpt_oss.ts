// gpt-oss (OpenAI 2025, arXiv 2508.10925; transformers models/gpt_oss). Against Mixtral: sinks, every other layer
// slides, biases everywhere, YaRN by default, scores are a softmax over the chosen, and (up + 1) · gate · sigmoid(1.702
// gate) within limits. Files keep the experts of a layer in stacks [in, out], gate and up in alternate columns.
import { defineModel, schema, type JsonObject } from '@q/config';
import type { Source } from '@q/tensor';
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
} from './shared/decoder-config.js';
import { Experts, Router, SparseMlp } from './shared/experts.js';
import { size } from './shared/sizes.js';
import { assertExperts, numChoices, numExperts, sparseFamily, type SparseConfig } from './shared/sparse-decoder.js';

const { flag, orElse } = schema;

/** What the class takes where a file says nothing of rotary positions. */
const usualRope = {
  rope_type: 'yarn',
  rope_theta: 150000,
  factor: 32,
  beta_fast: 32,
  beta_slow: 1,
  truncate: false,
  original_max_position_embeddings: 4096,
};

const withRope = (raw: JsonObject): JsonObject =>
  raw.rope_parameters || raw.rope_scaling
    ? raw
    : {
        ...raw,
        rope_parameters: { ...usualRope, ...(raw.rope_theta !== undefined && { rope_theta: raw.rope_theta }) },
      };

const config = defineModel({
  modelType: 'gpt_oss',
  shape: {
    ...decoderShape({ vocab_size: 201088, intermediate_size: 2880, max_position_embeddings: 131072 }),
    hidden_size: orElse(size.hidden, 2880),
    num_hidden_layers: orElse(size.layers, 36),
    num_attention_heads: orElse(heads, 64),
    num_key_value_heads: z.nullable(heads).default(8),
    head_dim: z.nullable(size.headDim).default(64),
    rms_norm_eps: orElse(size.normEps, 1e-5),
    attention_bias: flag(true),
    sliding_window: z.nullable(window).default(128),
    layer_types: layerTypes,
    num_local_experts: orElse(numExperts, 128),
    num_experts_per_tok: orElse(numChoices, 4),
  },
  // Of published files; the class reads none of them.
  alsoReads: [...decoderKeys, 'experts_per_token', 'initial_context_length'],
  neutral: { swiglu_limit: [7] },
  expected: [...expectedKeys, 'num_key_value_heads', 'num_local_experts', 'num_experts_per_tok'],
  read: (keys, raw, context): SparseConfig => {
    const { num_local_experts: count, num_experts_per_tok: choices, num_hidden_layers: layers } = keys;
    assertExperts(context.op, choices, count, layers);
    const decoder = readDecoder(keys, withRope(raw), context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: keys.attention_bias,
      attentionOutputBias: keys.attention_bias,
      mlpBias: true,
      ...readWindow(context.op, layers, keys.layer_types, keys.sliding_window, (layer) =>
        layer % 2 === 0 ? 'sliding_attention' : 'full_attention',
      ),
    });
    return {
      ...decoder,
      numExperts: count,
      expertSize: decoder.intermediateSize,
      route: { choices, kind: 'softmax_of_chosen' },
      headNorms: false,
      sinks: true,
      sparseLayers: Array.from({ length: layers }, () => true),
    };
  },
});

function block(settings: SparseConfig): SparseMlp {
  const router = new Router('GptOssTopKRouter', settings, settings.route, { bias: true });
  const experts = new Experts('GptOssExperts', {
    ...settings,
    hiddenAct: 'quick_gelu', // whatever hidden_act says
    expertBias: true,
    limits: { limit: 7, upOffset: 1 },
    activationModule: false,
  });
  return new SparseMlp('GptOssMLP', { router, experts }, { router, experts });
}

/** A matrix or bias of an expert in the stacks of a layer. */
function sources(parameter: string): readonly Source[] | undefined {
  const match = /^(.*\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.(weight|bias)$/.exec(parameter);
  if (!match) return undefined;
  const [, path, expert, matrix, kind] = match;
  const stack = `${path}.${matrix === 'down' ? 'down' : 'gate_up'}_proj`;
  const rows = matrix === 'down' ? undefined : { start: matrix === 'up' ? 1 : 0, step: 2 };
  const index = Number(expert);
  return [kind === 'bias' ? { name: `${stack}_bias`, index, rows } : { name: stack, index, transposed: true, rows }];
}

export const gptOss = sparseFamily(config, { family: 'GptOss', block, checkpoint: sources });
