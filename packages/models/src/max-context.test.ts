import { expect, test } from 'vitest';
import { maxContext } from '@q/config';
import { parseModelConfig } from './registry.js';

const base = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  vocab_size: 50,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  hidden_act: 'silu',
  tie_word_embeddings: false,
};
const factors = { short_factor: [1, 1, 1, 1], long_factor: [2, 2, 2, 2] };

test.each([
  [undefined, 64],
  [{ rope_type: 'linear', factor: 3 }, 192],
  [{ rope_type: 'dynamic', factor: 2 }, 128],
  [{ rope_type: 'yarn', factor: 4, original_max_position_embeddings: 64 }, 256],
  [{ rope_type: 'yarn', factor: 4, original_max_position_embeddings: 16 }, 64],
  [{ rope_type: 'longrope', factor: 8, original_max_position_embeddings: 16, ...factors }, 128],
  [{ rope_type: 'longrope', original_max_position_embeddings: 16, ...factors }, 64],
  [
    { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 16 },
    64,
  ],
])('%j reaches %i', (rope_scaling, tokens) => {
  const config = parseModelConfig({ ...base, ...(rope_scaling && { rope_scaling }) });
  if (config.modelType !== 'llama') throw new Error('not the llama of the test');
  expect(maxContext(config)).toBe(tokens);
});
