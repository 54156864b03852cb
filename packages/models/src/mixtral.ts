// Mixtral (Jiang et al. 2024, arXiv 2401.04088; transformers models/mixtral). Against Mistral: each MLP is routed
// experts, two a row by default; scores are the softmax over all experts, renormalised. Files keep its older names.
import { defineModel, schema } from '@q/config';
import { z } from 'zod';
import {
  decoderKeys,
  decoderShape,
  expectedKeys,
  heads,
  readDecoder,
  readWindow,
  window,
} from './shared/decoder-config.js';
import { expertSources } from './shared/experts.js';
import { size } from './shared/sizes.js';
import {
  assertExperts,
  numChoices,
  numExperts,
  sparseBlock,
  sparseFamily,
  type SparseConfig,
} from './shared/sparse-decoder.js';

const { nullable, orElse } = schema;

const config = defineModel({
  modelType: 'mixtral',
  shape: {
    ...decoderShape({ vocab_size: 32000, intermediate_size: 14336, max_position_embeddings: 131072 }),
    rms_norm_eps: orElse(size.normEps, 1e-5),
    // null means as many as query heads, a missing key 8.
    num_key_value_heads: z.nullable(heads).default(8),
    sliding_window: nullable(window),
    num_local_experts: orElse(numExperts, 8),
    num_experts_per_tok: orElse(numChoices, 2),
  },
  alsoReads: decoderKeys,
  expected: [...expectedKeys, 'num_key_value_heads', 'num_local_experts', 'num_experts_per_tok'],
  tokenIds: { bos: 1, eos: 2 },
  read: (keys, raw, context): SparseConfig => {
    const { num_local_experts: count, num_experts_per_tok: choices, num_hidden_layers: layers } = keys;
    assertExperts(context.op, choices, count, layers);
    const decoder = readDecoder(keys, raw, context, {
      numKvHeads: keys.num_key_value_heads ?? keys.num_attention_heads,
      attentionBias: false,
      attentionOutputBias: false,
      mlpBias: false,
      ...readWindow(context.op, layers, null, keys.sliding_window, () => 'sliding_attention'),
    });
    return {
      ...decoder,
      numExperts: count,
      expertSize: decoder.intermediateSize,
      route: { choices, kind: 'softmax', normalize: true, inModelDType: false },
      headNorms: false,
      sparseLayers: Array.from({ length: layers }, () => true),
    };
  },
});

const matrices: Readonly<Record<string, string>> = { gate_proj: 'w1', down_proj: 'w2', up_proj: 'w3' };
const inFiles = (name: string) => name.replace('.mlp.', '.block_sparse_moe.');

export const mixtral = sparseFamily(config, {
  family: 'Mixtral',
  block: sparseBlock('Mixtral', { routerFirst: true }),
  checkpoint: (parameter, { expertSize }) => {
    if (parameter.endsWith('.mlp.gate.weight')) return [{ name: inFiles(parameter) }, { name: parameter }];
    return expertSources(parameter, expertSize, (path, expert, matrix) =>
      inFiles(`${path}.${expert}.${matrices[matrix]}.weight`),
    );
  },
});
