// Relatives of T5 and BART: greedy generation as transformers' eager attention has it, quantizing while loading, plans,
// and tables that files may hold or lack.
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openCheckpoint } from '@q/loader';
import { describe, expect, it } from 'vitest';
import {
  AutoModelForSeq2SeqLM,
  planFor,
  type LoadModelOptions,
  type Seq2SeqInput,
  type Seq2SeqModel,
} from './index.js';
import { expectedRows, fixture, temporaryFolders, unpackCheckpoint } from './testing.js';

const temporary = temporaryFolders();
const load = async (name: string, options: LoadModelOptions = {}): Promise<Seq2SeqModel> =>
  AutoModelForSeq2SeqLM.fromPretrained(await unpackCheckpoint(name, await temporary(name)), { threads: 1, ...options });

async function logitsOf(model: Seq2SeqModel, input: Seq2SeqInput): Promise<Float32Array> {
  using output = model.forward(input);
  return (await output.logits.data()) as Float32Array;
}

interface Generated {
  /** 12 new tokens. */
  readonly greedy: number[][];
  /** 6 new tokens, the first one 7 and the last one the end token. */
  readonly forced: number[][];
}

const generated = fixture<Record<string, Generated>>('generation-seq2seq');
const names = Object.keys(generated);

describe.each(names)('%s', (name) => {
  const { greedy, forced } = generated[name];
  const inputIds = expectedRows(name, 'input_ids');
  const attentionMask = expectedRows(name, 'attention_mask');

  it('generates what transformers does, with and without forced tokens', async () => {
    await using model = await load(name);
    const { eosTokenId } = model.generationConfig;
    const force = { forcedBosTokenId: 7, forcedEosTokenId: eosTokenId };
    for (const [expected, options] of [
      [greedy, { maxNewTokens: 12 }],
      [forced, { maxNewTokens: 6, ...force }],
    ] as const) {
      const { sequences } = await model.generate({ inputIds, attentionMask, ...options });
      expect(sequences).toEqual(expected.map((row, i) => row.slice(0, sequences[i].length)));
      expect(Math.max(...sequences.map(({ length }) => length))).toBe(expected[0].length);
    }
  });

  it('is planned with the bytes that it has', async () => {
    const folder = await unpackCheckpoint(name, await temporary(name));
    const plan = await planFor(folder, { deviceMap: 'cpu' });
    expect(Object.keys(plan.deviceMap)).toEqual(['']);
  });

  it.each([{ loadIn4bit: true }, { loadIn8bit: true }])('loads with %j, and again what that saved', async (options) => {
    await using model = await load(name, options);
    const input = { inputIds, attentionMask, decoderInputIds: greedy.map((row) => row.slice(0, 3)) };
    const logits = await logitsOf(model, input);
    expect(logits.every(Number.isFinite)).toBe(true);
    const folder = await temporary('quantized');
    await model.savePretrained(folder);
    await using checkpoint = await openCheckpoint(folder);
    const codes = [...checkpoint.tensors].filter(([, { dtype }]) => dtype === 'u8' || dtype === 'i8');
    expect(codes.length).toBeGreaterThan(0);
    expect(codes.filter(([tensor]) => /lm_head|shared|embed|norm|\.wo\./.test(tensor))).toEqual([]);
    await using again = await AutoModelForSeq2SeqLM.fromPretrained(folder, { threads: 1 });
    expect(again.warnings).toEqual([]);
    expect(again.summary()).toEqual(model.summary());
  });
});

describe('tensors that files may lack', () => {
  const without = async (name: string, pattern: RegExp): Promise<string> => {
    const folder = await unpackCheckpoint(name, await temporary('lacking'));
    const path = join(folder, 'model.safetensors');
    await writeFile(path, withoutTensors(await readFile(path), pattern));
    return folder;
  };

  it('positions as sines and cosines are computed, and not saved', async () => {
    const folder = await without('pegasus', /embed_positions/);
    await using stored = await load('pegasus');
    await using computed = await AutoModelForSeq2SeqLM.fromPretrained(folder, { threads: 1 });
    expect(computed.warnings).toEqual([]);
    const input = { inputIds: [[5, 6, 7, 8]], decoderInputIds: [[0, 3]] };
    const [a, b] = [await logitsOf(stored, input), await logitsOf(computed, input)];
    expect(Math.max(...a.map((value, i) => Math.abs(value - b[i])))).toBeLessThanOrEqual(1e-6);
    const saved = await temporary('saved');
    await computed.savePretrained(saved);
    const bytes = await readFile(join(saved, 'model.safetensors'));
    expect(bytes.equals(await readFile(join(folder, 'model.safetensors')))).toBe(true);
  });

  it('the bias of the logits is zero', async () => {
    await using stored = await load('bart');
    await using zero = await AutoModelForSeq2SeqLM.fromPretrained(await without('bart', /final_logits_bias/), {
      threads: 1,
    });
    const input = { inputIds: [[5, 6, 7, 8]], decoderInputIds: [[2]] };
    const [a, b] = [await logitsOf(stored, input), await logitsOf(zero, input)];
    const bias = a.map((value, i) => value - b[i]);
    expect(Math.max(...bias.map(Math.abs))).toBeGreaterThan(1e-3);
  });

  it('others are missed', async () => {
    const folder = await without('bart', /embed_positions/);
    await expect(AutoModelForSeq2SeqLM.fromPretrained(folder, { threads: 1 })).rejects.toThrow(/embed_positions/);
  });
});

it('bart forces the end token at the length, as its class says where no file does', async () => {
  const folder = await unpackCheckpoint('bart', await temporary('bart'));
  await rm(join(folder, 'generation_config.json'));
  const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;
  delete config.forced_eos_token_id;
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  await using model = await AutoModelForSeq2SeqLM.fromPretrained(folder, { threads: 1 });
  const { sequences } = await model.generate({ inputIds: [[5, 6, 7, 8]], forcedBosTokenId: 7, maxNewTokens: 2 });
  expect(sequences).toEqual([[2, 7, 2]]);
});

/** A safetensors file without the tensors of a pattern. */
function withoutTensors(file: Buffer, pattern: RegExp): Buffer {
  const length = Number(file.readBigUInt64LE(0));
  const { __metadata__, ...tensors } = JSON.parse(file.subarray(8, 8 + length).toString()) as Record<
    string,
    { data_offsets: [number, number] }
  >;
  const data = file.subarray(8 + length);
  const parts: Buffer[] = [];
  let next = 0;
  const kept = Object.entries(tensors)
    .filter(([name]) => !pattern.test(name))
    .map(([name, { data_offsets, ...tensor }]) => {
      const [from, to] = data_offsets;
      parts.push(data.subarray(from, to));
      const start = next;
      next += to - from;
      return [name, { ...tensor, data_offsets: [start, next] }] as const;
    });
  const text = Buffer.from(JSON.stringify({ __metadata__, ...Object.fromEntries(kept) }));
  const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, ' ')]);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([size, padded, ...parts]);
}
