// Command R7B and Command A (Cohere 2025, arXiv 2504.00698; transformers models/cohere2). Against Cohere: most layers
// slide, and only those are rotated; every fourth one sees all keys and knows no positions.
import { ConfigError, defineModel, schema } from '@q/config';
import { cohereFacts, cohereFamily, cohereShape, kindsOf, type CohereConfig } from './cohere.js';
import { layerTypes, readWindow, window } from './shared/decoder-config.js';
import { readLayerNormDecoder } from './shared/layer-norm-decoder.js';
import { assertWholeHead } from './shared/rope-spelling.js';
import { size } from './shared/sizes.js';
import { z } from 'zod';

const { nullable, orElse } = schema;

const config = defineModel({
  modelType: 'cohere2',
  shape: {
    ...cohereShape,
    // Written beside the sizes that it follows from.
    head_dim: nullable(size.headDim),
    sliding_window: z.nullable(window).default(4096),
    layer_types: layerTypes,
    // The last of so many layers sees all keys: what files had before `layer_types`.
    sliding_window_pattern: orElse(size.layers, 4),
  },
  ...cohereFacts,
  // Of the published files: the kind of rotation, and what is always so.
  neutral: { position_embedding_type: ['rope_gptj'] },
  read: (keys, raw, context): CohereConfig => {
    const { op } = context;
    const decoder = readLayerNormDecoder(keys, raw, context, { numKvHeads: keys.num_key_value_heads, mlpMatrices: 3 });
    if (keys.head_dim !== null && keys.head_dim !== decoder.headDim)
      throw new ConfigError(op, `head_dim is ${keys.head_dim}`, {
        why: `must be hidden_size / num_attention_heads (${decoder.headDim})`,
      });
    assertWholeHead(op, decoder.rope);
    const pattern = keys.sliding_window_pattern;
    const { layerTypes: types, slidingWindow } = readWindow(
      op,
      decoder.numLayers,
      keys.layer_types ?? byPattern(decoder.numLayers, pattern),
      keys.sliding_window,
      () => 'full_attention',
    );
    return {
      ...decoder,
      attentionBias: keys.attention_bias,
      headNorms: false,
      logitScale: keys.logit_scale,
      layerKinds: kindsOf(types, slidingWindow),
    };
  },
});

const byPattern = (numLayers: number, pattern: number) =>
  Array.from({ length: numLayers }, (_, layer) =>
    (layer + 1) % pattern === 0 ? ('full_attention' as const) : ('sliding_attention' as const),
  );

export const cohere2 = cohereFamily(config, 'Cohere2');
