// generation_config.json, and generation as it says.
import { AutoModelForCausalLM, GenerationConfig } from '../../../packages/transformers/dist/index.js';
import { llamaFiles, writeFiles } from '../files.mjs';
import { jsonText, mutateJson } from '../mutate.mjs';

const seed = {
  bos_token_id: 1,
  eos_token_id: [2, 3],
  pad_token_id: 0,
  max_length: 20,
  max_new_tokens: 4,
  do_sample: true,
  temperature: 0.7,
  top_k: 5,
  top_p: 0.9,
  min_p: 0.05,
  repetition_penalty: 1.1,
  num_beams: 1,
  use_cache: true,
  suppress_tokens: null,
  stop_strings: null,
  transformers_version: '5.17.0',
};
const files = llamaFiles();

export default {
  deadlineMs: 20_000,
  good: () => [{ 'generation_config.json': JSON.stringify(seed) }],

  make: (random) => ({ 'generation_config.json': jsonText(mutateJson(random, seed)) }),

  async run(changed, folder) {
    writeFiles(folder, { ...files, ...changed });
    const model = await AutoModelForCausalLM.fromPretrained(folder, { threads: 1 });
    try {
      await model.generate({ inputIds: [[1, 5, 6]], signal: AbortSignal.timeout(2000) });
    } finally {
      await model.dispose();
    }
    GenerationConfig.fromJSON?.(JSON.parse(changed['generation_config.json']));
  },
};
