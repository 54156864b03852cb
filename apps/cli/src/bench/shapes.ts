import { readFile } from 'node:fs/promises';
import { ConfigError, parseModelConfig, type ModelConfig } from '@q/transformers';

const llama = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_act: 'silu',
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
  attention_bias: false,
  bos_token_id: 1,
  eos_token_id: 2,
};

/** config.json of well-known models, to be filled with random weights. */
const builtIn: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  // meta-llama/Llama-2-7b-hf
  'llama-7b': {
    ...llama,
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    vocab_size: 32000,
    max_position_embeddings: 4096,
    torch_dtype: 'float16',
  },
  // TinyLlama/TinyLlama-1.1B-Chat-v1.0
  'tinyllama-1.1b': {
    ...llama,
    hidden_size: 2048,
    intermediate_size: 5632,
    num_hidden_layers: 22,
    num_attention_heads: 32,
    num_key_value_heads: 4,
    vocab_size: 32000,
    max_position_embeddings: 2048,
    torch_dtype: 'bfloat16',
  },
};

export const shapeNames = Object.keys(builtIn);

/** The config of a built-in shape, or of a config.json file. @throws ConfigError when it is neither. */
export async function shapeConfig(shape: string): Promise<ModelConfig> {
  if (Object.hasOwn(builtIn, shape)) return parseModelConfig(builtIn[shape]);
  const text = await readFile(shape, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new ConfigError('bench', `--shape ${shape} is neither built in nor a file`, {
      why: cause.message,
      fix: `use ${shapeNames.join(', ')}, or the path of a config.json`,
      cause,
    });
  });
  return parseModelConfig(text);
}
