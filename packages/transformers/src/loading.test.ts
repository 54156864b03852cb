// fromPretrained when something is wrong: a typed error that says where, and nothing that stays.
import { readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseModelConfig } from '@q/models';
import { buildModel, parameterSlots } from '@q/models';
import {
  AutoConfig,
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForSeq2SeqLM,
  AutoTokenizer,
  CheckpointError,
  ConfigError,
  loadParameters,
  openCheckpoint,
  openDevice,
  planFor,
  UnsupportedError,
  type LoadProgress,
} from './index.js';
import { temporaryFolders, unpackCheckpoint } from './testing.js';

const temporary = temporaryFolders();
const unpack = async (name = 'llama') => unpackCheckpoint(name, await temporary(name));
const weights = (folder: string) => join(folder, 'model.safetensors');

async function rewriteConfig(folder: string, change: (config: Record<string, unknown>) => void): Promise<string> {
  const path = join(folder, 'config.json');
  const config = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
  change(config);
  await writeFile(path, JSON.stringify(config));
  return folder;
}

describe('damaged folders', () => {
  const cases: [string, (folder: string) => Promise<unknown>, new (...args: never[]) => Error, RegExp][] = [
    ['no config.json', (folder) => rm(join(folder, 'config.json')), CheckpointError, /config\.json/],
    ['no weights', (folder) => rm(weights(folder)), CheckpointError, /model\.safetensors/],
    ['weights cut short', (folder) => truncate(weights(folder), 200_000), CheckpointError, /model\.safetensors/],
    ['a header cut short', (folder) => truncate(weights(folder), 100), CheckpointError, /model\.safetensors/],
    ['an empty file', (folder) => truncate(weights(folder), 0), CheckpointError, /model\.safetensors/],
    [
      'a config of a larger model',
      (folder) => rewriteConfig(folder, (config) => (config.num_hidden_layers = 3)),
      CheckpointError,
      /lacks 9 of/,
    ],
    [
      'a config of a smaller model',
      (folder) => rewriteConfig(folder, (config) => (config.num_hidden_layers = 1)),
      CheckpointError,
      /model\.layers\.1\./,
    ],
    [
      'a config of a wider model',
      (folder) => rewriteConfig(folder, (config) => (config.intermediate_size = 256)),
      CheckpointError,
      /mlp\.gate_proj\.weight/,
    ],
    [
      'an unknown architecture',
      (folder) => rewriteConfig(folder, (config) => (config.model_type = 'nothing')),
      UnsupportedError,
      /nothing/,
    ],
    ['a config that is no JSON', (folder) => writeFile(join(folder, 'config.json'), '{'), Error, /config/],
  ];

  it.each(cases)('%s', async (_, damage, type, message) => {
    const folder = await unpack();
    await damage(folder);
    await expect(AutoModelForCausalLM.fromPretrained(folder, { threads: 1 })).rejects.toSatisfy(
      (error) => error instanceof type && message.test((error as Error).message),
    );
  });

  it.each(['llama', 'bert', 'bloom', 'gpt_neox', 'opt', 't5'])(
    '%s: ten thousand layers over a small checkpoint are refused before any is made',
    async (name) => {
      const folder = await unpack(name);
      await rewriteConfig(folder, (config) => {
        const keys = Object.keys(config).filter((key) => /^(n_layer|num_(hidden_|decoder_)?layers)$/.test(key));
        for (const key of keys) config[key] = 10_000 / keys.length;
      });
      const load = { bert: AutoModel, t5: AutoModelForSeq2SeqLM }[name] ?? AutoModelForCausalLM;
      for (const run of [() => load.fromPretrained(folder), () => planFor(folder, { maxMemory: { cpu: '1GiB' } })]) {
        const started = performance.now();
        const error: unknown = await (run() as Promise<unknown>).catch((reason: unknown) => reason);
        expect(performance.now() - started).toBeLessThan(2000); // 5 to 40 ms on an idle machine; building takes seconds
        expect(error).toBeInstanceOf(ConfigError);
        expect((error as Error).message).toMatch(/10000 layers, and the checkpoint has \d+ tensors/);
      }
    },
  );

  it('a file that shrinks between opening and loading is an error, not a crash, where weights alias the file', async () => {
    for (const name of ['llama', 'bnb-nf4', 'bnb-int8']) {
      const folder = await unpack(name);
      await using checkpoint = await openCheckpoint(folder);
      await truncate(weights(folder), 100_000);
      const config = parseModelConfig(await readFile(join(folder, 'config.json'), 'utf8'));
      const backend = openDevice('cpu', { threads: 1 });
      const model = buildModel(config, 'causalLM');
      const error = await loadParameters(checkpoint, parameterSlots(model), {
        backend,
        stored: config.quantizationConfig ?? undefined,
      }).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error).toBeInstanceOf(CheckpointError);
      expect((error as Error).message).toMatch(/model\.safetensors, tensor \S+/);
      model.dispose();
      expect(backend.memory().usedBytes).toBe(0);
      await backend.close();
    }
  });
});

it('reports progress and stops at an abort with its reason', async () => {
  const folder = await unpack('bnb-fp16');
  const seen: LoadProgress[] = [];
  await (
    await AutoModelForCausalLM.fromPretrained(folder, {
      threads: 1,
      loadIn4bit: true,
      onProgress: (progress) => seen.push(progress),
    })
  ).dispose();
  expect(seen.length).toBe(21);
  expect(seen.map(({ bytes }) => bytes)).toEqual(seen.map(({ bytes }) => bytes).sort((a, b) => a - b));
  expect(seen[20].bytes).toBe(seen[20].totalBytes);
  for (const after of [1, 7, 20]) {
    const controller = new AbortController();
    const reason = new Error('enough');
    let count = 0;
    const onProgress = () => {
      count += 1;
      if (count === after) controller.abort(reason);
    };
    await expect(
      AutoModelForCausalLM.fromPretrained(folder, {
        threads: 1,
        loadIn4bit: true,
        signal: controller.signal,
        onProgress,
      }),
    ).rejects.toBe(reason);
    expect(count).toBe(after);
  }
  await expect(
    AutoModelForCausalLM.fromPretrained(folder, { signal: AbortSignal.abort(new Error('before')) }),
  ).rejects.toThrow('before');
});

it('saves nothing when saving is aborted', async () => {
  await using model = await AutoModelForCausalLM.fromPretrained(await unpack(), { threads: 1 });
  const folder = await temporary('aborted');
  const controller = new AbortController();
  await expect(
    model.savePretrained(folder, {
      signal: controller.signal,
      maxShardSize: '100KB',
      onProgress: () => controller.abort(new Error('full')),
    }),
  ).rejects.toThrow('full');
  expect(await readdir(folder)).toEqual([]);
});

it('dummy weights make a working model of the config', async () => {
  const folder = await unpack('bnb-fp16');
  const config = await AutoConfig.fromPretrained(folder);
  await using model = await AutoModelForCausalLM.fromConfig(config, { loadIn4bit: true, threads: 1 });
  expect(model.summary().linears).toEqual({ fp4: 14, dense: 1 });
  expect((await model.generate({ inputIds: [[1, 2, 3]], maxNewTokens: 4, eosTokenId: null })).newTokens[0].length).toBe(
    4,
  );
});

it('asks for a folder with a tokenizer', async () => {
  await expect(AutoTokenizer.fromPretrained(await unpack('mistral'))).rejects.toThrow(CheckpointError);
  await expect(AutoTokenizer.fromPretrained(await unpack(), { revisoin: 'x' } as object)).rejects.toSatisfy(
    (error) => error instanceof ConfigError && /revision/.test(error.message),
  );
});
