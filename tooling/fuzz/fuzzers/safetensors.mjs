// Weight files and their index: headers, offsets, data, shards.
import { inspectCheckpoint, openCheckpoint } from '../../../packages/transformers/dist/index.js';
import { attempts } from '../attempts.mjs';
import { fileOf, floats, partsOf, safetensors, writeFiles } from '../files.mjs';
import { mutateBytes, mutateJson, mutateJsonFile } from '../mutate.mjs';
import { Random } from '../random.mjs';

const random = new Random('safetensors');
const tensor = (dtype, width, ...shape) => ({
  dtype,
  shape,
  bytes: random.bytes(width * shape.reduce((a, b) => a * b, 1)),
});
const first = {
  'model.layers.0.a.weight': { dtype: 'F32', shape: [2, 3], bytes: floats(random, 6) },
  'model.layers.0.b.weight': tensor('BF16', 2, 4, 4),
  scalar: tensor('F16', 2),
};
const second = {
  'steps.bias': tensor('I8', 1, 8),
  ids: tensor('I64', 8, 3),
  empty: tensor('U8', 1, 0, 5),
};
const shards = {
  'model-00001-of-00002.safetensors': fileOf(first),
  'model-00002-of-00002.safetensors': fileOf(second),
};
const index = {
  metadata: { total_size: 123 },
  weight_map: Object.fromEntries(
    [first, second].flatMap((tensors, shard) => Object.keys(tensors).map((name) => [name, Object.keys(shards)[shard]])),
  ),
};
const config = Buffer.from('{"model_type":"llama"}');
const single = { 'config.json': config, 'model.safetensors': fileOf({ ...first, ...second }) };
const sharded = {
  'config.json': config,
  'model.safetensors.index.json': Buffer.from(JSON.stringify(index)),
  ...shards,
};

/** A changed weight file: its header as a value, its header's text, or any of its bytes. */
function changed(random, file) {
  const { header, data } = partsOf(file);
  switch (random.int(0, 5)) {
    case 0:
      return mutateBytes(random, file);
    case 1:
      return file.subarray(0, random.int(0, file.length));
    case 2: {
      const copy = Buffer.from(file);
      copy.writeBigUInt64LE(
        random.pick([0n, 1n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n, BigInt(file.length)]),
      );
      return copy;
    }
    default:
      return safetensors(mutateJsonFile(random, header), data);
  }
}

export default {
  good: () => [single, sharded],

  make(random) {
    if (random.chance(0.5)) return { ...single, 'model.safetensors': changed(random, single['model.safetensors']) };
    if (random.chance(0.6))
      return { ...sharded, 'model.safetensors.index.json': mutateJsonFile(random, mutateJson(random, index, 2)) };
    const name = random.pick(Object.keys(shards));
    return { ...sharded, [name]: changed(random, shards[name]) };
  },

  async run(files, folder) {
    writeFiles(folder, files);
    await attempts(
      () => inspectCheckpoint(folder),
      async () => {
        const checkpoint = await openCheckpoint(folder);
        try {
          for (const name of checkpoint.tensors.keys()) await checkpoint.read(name);
        } finally {
          await checkpoint.close();
        }
      },
    );
  },
};
