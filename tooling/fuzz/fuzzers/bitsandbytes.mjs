// Quantized checkpoints: states, scales, codes, names, the config that says how; loading, a forward pass, inspecting.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  AutoModelForCausalLM,
  BitsAndBytesConfig,
  inspectCheckpoint,
} from '../../../packages/transformers/dist/index.js';
import { attempts } from '../attempts.mjs';
import { llamaFiles, partsOf, safetensors, writeFiles } from '../files.mjs';
import { jsonText, mutateBytes, mutateJson, mutateJsonFile } from '../mutate.mjs';

const kinds = [
  { loadIn4bit: true, bnb4bitQuantType: 'nf4' },
  { loadIn4bit: true, bnb4bitQuantType: 'fp4', bnb4bitUseDoubleQuant: true },
  { loadIn8bit: true },
];

/** Each kind as Q writes it. */
async function seedsIn(folder) {
  const seeds = [];
  for (const kind of kinds) {
    writeFiles(folder, llamaFiles());
    const model = await AutoModelForCausalLM.fromPretrained(folder, {
      quantizationConfig: new BitsAndBytesConfig(kind),
      threads: 1,
    });
    const saved = join(folder, 'saved');
    await model.savePretrained(saved);
    await model.dispose();
    seeds.push(Object.fromEntries(readdirSync(saved).map((name) => [name, readFileSync(join(saved, name))])));
  }
  return seeds;
}

const isHelper = (name) => /quant_state|absmax|quant_map|SCB|weight_format/.test(name);

/** One tensor with other bytes, of another length where that suits it: the others move. */
function withBytes({ header, data }, name, bytes) {
  const parts = [];
  const moved = {};
  let at = 0;
  for (const [other, spec] of Object.entries(header)) {
    if (other === '__metadata__') {
      moved[other] = spec;
      continue;
    }
    const part = other === name ? bytes : data.subarray(...spec.data_offsets);
    const shape = other === name && spec.shape.length === 1 && spec.dtype === 'U8' ? [part.length] : spec.shape;
    moved[other] = { ...spec, shape, data_offsets: [at, at + part.length] };
    parts.push(part);
    at += part.length;
  }
  return safetensors(moved, Buffer.concat(parts));
}

/** The bytes of a tensor, changed: JSON of quantization states as JSON. */
function changedData(random, bytes, name) {
  if (name.includes('quant_state') && random.chance(0.8))
    return Buffer.from(jsonText(mutateJson(random, JSON.parse(bytes.toString()))));
  if (random.chance(0.3)) {
    const copy = Buffer.from(bytes);
    const value = random.pick([Number.NaN, Infinity, -Infinity, -1, 1e38, 0]);
    if (copy.length >= 4) copy.writeFloatLE(value, 4 * random.int(0, (copy.length >> 2) - 1));
    return copy;
  }
  return mutateBytes(random, bytes);
}

async function forward(folder) {
  const model = await AutoModelForCausalLM.fromPretrained(folder, { threads: 1 });
  try {
    const output = model.forward({ inputIds: [[1, 5, 6]] });
    await output.logits.data();
    output.dispose();
  } finally {
    await model.dispose();
  }
}

export default {
  deadlineMs: 20_000,
  async setup(folder) {
    return { folder, seeds: await seedsIn(folder) };
  },
  good: ({ seeds }) => seeds,

  make(random, { seeds }) {
    const files = { ...random.pick(seeds) };
    const parts = partsOf(files['model.safetensors']);
    const kind = random.int(0, 5);
    if (kind === 0) {
      const config = JSON.parse(files['config.json'].toString());
      config.quantization_config = mutateJson(random, config.quantization_config);
      files['config.json'] = Buffer.from(jsonText(config));
    } else if (kind === 1) files['model.safetensors'] = safetensors(mutateJsonFile(random, parts.header), parts.data);
    else {
      const names = Object.keys(parts.header).filter((name) => name !== '__metadata__');
      const helpers = names.filter(isHelper);
      const name = random.pick(kind < 5 && helpers.length > 0 ? helpers : names);
      const bytes = changedData(random, parts.data.subarray(...parts.header[name].data_offsets), name);
      files['model.safetensors'] = withBytes(parts, name, bytes);
    }
    return files;
  },

  async run(files, { folder }) {
    writeFiles(folder, files);
    await attempts(
      () => inspectCheckpoint(folder),
      () => forward(folder),
    );
  },
};
