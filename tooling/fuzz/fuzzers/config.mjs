// config.json: parsing, what follows from it (module tree, plan), writing it back.
import { readdirSync, readFileSync } from 'node:fs';
import {
  AutoConfig,
  buildModel,
  MODEL_TYPES,
  parseModelConfig,
  planFor,
  taskOf,
} from '../../../packages/transformers/dist/index.js';
import { llamaConfig, writeFiles } from '../files.mjs';
import { enlargeJson, jsonText, mutateJsonFile } from '../mutate.mjs';

const bnb = {
  quant_method: 'bitsandbytes',
  load_in_4bit: true,
  bnb_4bit_quant_type: 'nf4',
  llm_int8_skip_modules: ['lm_head'],
};
const ropes = [
  { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 32, beta_fast: 32, beta_slow: 1 },
  { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 },
  { rope_type: 'dynamic', factor: 2 },
  {
    rope_type: 'longrope',
    factor: 2,
    short_factor: Array(8).fill(1),
    long_factor: Array(8).fill(2),
    original_max_position_embeddings: 32,
  },
];
// The configurations that the tests of models read: whoever adds an architecture adds one.
const fixtures = new URL('../../../packages/models/fixtures/configs/', import.meta.url);
const others = readdirSync(fixtures).map((name) => JSON.parse(readFileSync(new URL(name, fixtures), 'utf8')));
const missing = MODEL_TYPES.filter((type) => !others.some((config) => config.model_type === type));
if (missing.length > 0)
  throw new Error(`packages/models/fixtures/configs has no configuration of ${missing.join(', ')}`);
const seeds = [
  ...others,
  ...MODEL_TYPES.map((model_type) => ({ ...llamaConfig, model_type, rope_scaling: null })),
  ...ropes.map((rope_scaling) => ({ ...llamaConfig, rope_scaling })),
  { ...llamaConfig, quantization_config: bnb },
];
const plan = { maxMemory: { 0: '1GiB', cpu: '1GiB' }, context: 16, batch: 2, quantizedOffload: true };

export default {
  deadlineMs: 20_000,
  good: () => [llamaConfig, ...others].map((config) => ({ 'config.json': Buffer.from(JSON.stringify(config)) })),

  make: (random) => ({
    'config.json': random.chance(0.8)
      ? mutateJsonFile(random, random.pick(seeds))
      : Buffer.from(jsonText(enlargeJson(random, random.pick(seeds)))),
  }),

  async run(files, folder) {
    writeFiles(folder, files);
    parseModelConfig(readFileSync(`${folder}/config.json`, 'utf8')).toJSON?.();
    const config = await AutoConfig.fromPretrained(folder);
    buildModel(config, taskOf(config));
    await planFor(config, plan);
  },
};
