// tokenizer.json and the files beside it: loading, encoding, decoding.
import { AutoTokenizer } from '../../../packages/transformers/dist/index.js';
import { tokenizers, writeFiles } from '../files.mjs';
import { jsonText, mutateBytes, mutateJson } from '../mutate.mjs';

const texts = [
  'Hello world, 123!',
  '\u2460 e\u0301 a\u200db 🙂\ud800',
  'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!',
  '  <s></s>[CLS] \n',
  '',
];
const seeds = tokenizers();
// A vocabulary of many entries would draw nearly every change to itself.
delete seeds['t5-unigram'];

const filesOf = (values) =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Buffer.from(jsonText(value))]));

/** Changes outside the vocabulary four times of five. */
function changedTokenizer(random, json) {
  if (random.chance(0.2)) return mutateJson(random, json);
  const { model, ...rest } = json;
  const { vocab, merges, ...small } = model ?? {};
  const changed = mutateJson(random, { ...rest, model: small });
  if (changed?.model && typeof changed.model === 'object' && !Array.isArray(changed.model))
    for (const [name, value] of Object.entries({ vocab, merges }))
      if (value !== undefined && !(name in changed.model)) changed.model[name] = value;
  return changed;
}

export default {
  deadlineMs: 15_000,
  good: () => Object.values(seeds).map(filesOf),

  make(random) {
    const seed = seeds[random.pick(Object.keys(seeds))];
    const values = { ...seed };
    const name = random.chance(0.75) ? 'tokenizer.json' : random.pick(Object.keys(seed));
    values[name] = name === 'tokenizer.json' ? changedTokenizer(random, seed[name]) : mutateJson(random, seed[name]);
    const files = filesOf(values);
    if (random.chance(0.05)) files[name] = mutateBytes(random, files[name]);
    return files;
  },

  async run(files, folder) {
    writeFiles(folder, files);
    const tokenizer = await AutoTokenizer.fromPretrained(folder, { signal: AbortSignal.timeout(12_000) });
    for (const text of texts) {
      const ids = tokenizer.encode(text);
      tokenizer.decode(ids);
      tokenizer.decode(ids, { skipSpecialTokens: true });
    }
    tokenizer.encode('a', { pair: 'b' });
    tokenizer.decode([0, 1, 2, 500, 10_000]);
  },
};
