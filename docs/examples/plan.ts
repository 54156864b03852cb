// Plans a 7B model over two GPUs and the host's memory from its config alone, with room for the cache, and says why
// each module is where it is.
import { formatSize, parseModelConfig, planFor, renderBars } from '@q/transformers';

const config = parseModelConfig({
  model_type: 'llama',
  torch_dtype: 'float16',
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  vocab_size: 32000,
  max_position_embeddings: 4096,
  rms_norm_eps: 1e-5,
  hidden_act: 'silu',
  tie_word_embeddings: false,
});

const plan = await planFor(config, {
  deviceMap: 'sequential',
  maxMemory: { 0: '8GiB', 1: '6GiB', cpu: '30GiB' },
  context: 2048,
  batch: 2,
});
console.log(renderBars(plan, { width: 90 }));
for (const { device, weights, kvCache, free } of plan.usage)
  console.log(device, formatSize(weights), 'of weights,', formatSize(kvCache), 'of cache,', formatSize(free), 'free');

const { placements, table } = plan.explain();
console.log(table.split('\n').slice(0, 8).join('\n'));
const moved = placements.find(({ rejected }) => rejected.some(({ then }) => then === 'next device'));
console.log(`GPU 0 was full: ${moved?.module} is on ${moved?.device}`);
