// Files that torch.save wrote: the archive, the pickle in it, the storages behind it.
import { readFileSync } from 'node:fs';
import { inspectCheckpoint, openCheckpoint } from '../../../packages/transformers/dist/index.js';
import { attempts } from '../attempts.mjs';
import { writeFiles } from '../files.mjs';
import { mutateBytes } from '../mutate.mjs';

const read = (name) => readFileSync(new URL(`../../../packages/loader/fixtures/pickle/${name}.bin`, import.meta.url));
const files = Object.fromEntries(
  ['archive', 'archive-protocol4', 'stream', 'stream-protocol4', 'mixed', 'f8'].map((name) => [name, read(name)]),
);
const config = Buffer.from('{"model_type":"llama"}');

/** Opcodes of pickles, those that are refused too. */
const opcodes = Buffer.from(
  '().0123IJKLMNPQRSTUVX]abcdeghijlopqrstu}\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96',
  'latin1',
);
/** Names that a pickle may ask for, and some that would run code. */
const globals = [
  'torch._utils\n_rebuild_tensor_v2\n',
  'collections\nOrderedDict\n',
  'torch\nFloatStorage\n',
  'os\nsystem\n',
  'builtins\neval\n',
  'torch\nload\n',
];

function changed(random, file) {
  const copy = Buffer.from(file);
  const [from, to] = [file.indexOf(0x80), file.length];
  switch (random.int(0, 5)) {
    case 0:
      return mutateBytes(random, file);
    case 1:
      return file.subarray(0, random.int(0, file.length));
    case 2:
      for (let i = random.int(1, 4); i > 0; i--) copy[random.int(from, to)] = random.pick([...opcodes]);
      return copy;
    case 3:
      copy.writeUInt32LE(random.pick([0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 20]), random.int(from, to - 4));
      return copy;
    case 4:
      copy.write(`c${random.pick(globals)}`, random.int(from, to));
      return copy;
    default:
      copy[random.int(from, to)] = random.int(0, 256);
      return copy;
  }
}

export default {
  good: () => Object.values(files).map((file) => ({ 'config.json': config, 'pytorch_model.bin': file })),

  make(random) {
    return { 'config.json': config, 'pytorch_model.bin': changed(random, files[random.pick(Object.keys(files))]) };
  },

  async run(given, folder) {
    writeFiles(folder, given);
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
