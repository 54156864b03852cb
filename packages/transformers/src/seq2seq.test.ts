// Encoder-decoders against transformers' outputs: 1e-4 absolute, and the same argmax at every position.
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  AutoModel,
  AutoModelForSeq2SeqLM,
  planFor,
  UnsupportedError,
  type Seq2SeqModel,
  type Tensor,
} from './index.js';
import {
  checkpointFiles,
  compareLogits,
  expectedLogits,
  expectedRows,
  expectedTensor,
  temporaryFolders,
  unpackCheckpoint,
} from './testing.js';

const temporary = temporaryFolders();
const tolerance = 1e-4;

const load = async (name: string, options: { legacy?: boolean } = {}): Promise<Seq2SeqModel> =>
  AutoModelForSeq2SeqLM.fromPretrained(await unpackCheckpoint(name, await temporary(name), options), { threads: 1 });

/** Largest difference of rows whose mask is 1. */
function largest(actual: ArrayLike<number>, expected: ArrayLike<number>, mask?: readonly number[]): number {
  expect(actual.length).toBe(expected.length);
  const width = expected.length / (mask?.length ?? 1);
  return Array.from(expected).reduce(
    (max, value, i) => (!mask || mask[Math.floor(i / width)] ? Math.max(max, Math.abs(value - actual[i])) : max),
    0,
  );
}

const numbers = async (tensor: Tensor) => (await tensor.data()) as Float32Array;

describe.each(['bart', 'blenderbot-small', 'm2m_100', 'marian', 'mbart', 'mt5', 'pegasus', 't5', 't5-v1_1', 'umt5'])(
  '%s',
  (name) => {
    const inputIds = expectedRows(name, 'input_ids');
    const attentionMask = expectedRows(name, 'attention_mask');
    const decoderInputIds = expectedRows(name, 'decoder_input_ids');
    const first = { inputIds: inputIds.slice(0, 1), decoderInputIds: decoderInputIds.slice(0, 1) };

    it.each([false, true])('gives logits and states, alone and padded (legacy config: %s)', async (legacy) => {
      await using model = await load(name, { legacy });
      expect(model.warnings).toEqual([]);
      for (const [input, suffix] of [
        [first, ''],
        [{ inputIds, attentionMask, decoderInputIds }, '_padded'],
      ] as const) {
        using output = model.forward(input);
        const { largest: off, argmaxDiffers } = compareLogits(
          await numbers(output.logits),
          expectedLogits(name, `logits${suffix}`),
        );
        expect(off).toBeLessThanOrEqual(tolerance);
        expect(argmaxDiffers).toBe(0);
        const mask = suffix === '' ? undefined : attentionMask.flat();
        const encoded = await numbers(output.encoderLastHiddenState);
        const expected = (key: string) => expectedTensor(name, `${key}${suffix}`).values;
        expect(largest(encoded, expected('encoder_last_hidden_state'), mask)).toBeLessThanOrEqual(tolerance);
        const decoded = await numbers(output.lastHiddenState);
        expect(largest(decoded, expected('last_hidden_state'))).toBeLessThanOrEqual(tolerance);
      }
    });

    it('gives a row the same bits alone, in a batch, and with padding on either side', async () => {
      await using model = await load(name);
      using batch = model.forward({ inputIds, attentionMask, decoderInputIds });
      using alone = model.forward(first);
      const one = await numbers(alone.logits);
      expect((await numbers(batch.logits)).slice(0, one.length)).toEqual(one);
      const shown = inputIds[1].filter((_, i) => attentionMask[1][i] === 1);
      using left = model.forward({
        inputIds: [[0, 0, 0, ...shown]],
        attentionMask: [[0, 0, 0, ...shown.map(() => 1)]],
        decoderInputIds: [[0, 0, ...decoderInputIds[1]]],
        decoderAttentionMask: [[0, 0, ...decoderInputIds[1].map(() => 1)]],
      });
      expect((await numbers(left.logits)).slice(-one.length)).toEqual((await numbers(batch.logits)).slice(-one.length));
    });

    it('gives the logits of four cached steps after the padded batch', async () => {
      await using model = await load(name);
      const stepIds = expectedRows(name, 'step_decoder_input_ids');
      using past = model.createPast({ sequences: 2, maxLength: decoderInputIds[0].length + 4 });
      model.forward({ inputIds, attentionMask, decoderInputIds, past }).dispose();
      const { shape, columns, argmax } = expectedLogits(name, 'logits_step');
      for (let step = 0; step < 4; step++) {
        using output = model.forward({ decoderInputIds: stepIds.map((ids) => [ids[step]]), past });
        expect(output.encoderLastHiddenState).toBeUndefined();
        const rows = [step, 4 + step];
        const kept = columns.length / argmax.length;
        const { largest: off, argmaxDiffers } = compareLogits(await numbers(output.logits), {
          shape,
          argmax: rows.map((row) => argmax[row]),
          columns: Float32Array.from(rows.flatMap((row) => [...columns.slice(row * kept, (row + 1) * kept)])),
        });
        expect(off).toBeLessThanOrEqual(tolerance);
        expect(argmaxDiffers).toBe(0);
      }
    });

    it('is saved back byte for byte', async () => {
      await using model = await load(name);
      const folder = await temporary('saved');
      await model.savePretrained(folder);
      for (const [file, bytes] of Object.entries(checkpointFiles(name)).filter(([file]) => !file.includes('legacy')))
        expect((await readFile(join(folder, file))).equals(bytes), file).toBe(true);
    });

    it('gives the same states without a head', async () => {
      await using model = await AutoModel.fromPretrained(await unpackCheckpoint(name, await temporary(name)), {
        threads: 1,
      });
      using output = model.forward(first);
      expect(output.logits).toBeUndefined();
      const decoded = await numbers(output.lastHiddenState);
      expect(largest(decoded, expectedTensor(name, 'last_hidden_state').values)).toBeLessThanOrEqual(tolerance);
    });

    it('gives hidden states of both stacks, and leaves nothing behind', async () => {
      await using model = await load(name);
      model.forward(first).dispose(); // makes the tables that stay
      const before = model.backend.memory().usedBytes;
      {
        using output = model.forward({ ...first, outputHiddenStates: true });
        const { encoderHiddenStates, decoderHiddenStates, hiddenStates } = output;
        expect(hiddenStates).toBeUndefined();
        expect(await numbers(encoderHiddenStates!.at(-1)!)).toEqual(await numbers(output.encoderLastHiddenState));
        expect(await numbers(decoderHiddenStates!.at(-1)!)).toEqual(await numbers(output.lastHiddenState));
        expect([encoderHiddenStates!.length, decoderHiddenStates!.length]).toEqual([3, name === 't5-v1_1' ? 2 : 3]);
      }
      expect(model.backend.memory().usedBytes).toBe(before);
    });
  },
);

it('t5-encoder: AutoModel is the encoder alone', async () => {
  const name = 't5-encoder';
  await using model = await AutoModel.fromPretrained(await unpackCheckpoint(name, await temporary(name)));
  const attentionMask = expectedRows(name, 'attention_mask');
  using output = model.forward({ inputIds: expectedRows(name, 'input_ids'), attentionMask });
  const { values } = expectedTensor(name, 'last_hidden_state_padded');
  expect(largest(await numbers(output.lastHiddenState), values, attentionMask.flat())).toBeLessThanOrEqual(tolerance);
});

it.each([false, true])('t5-encoder is planned as it loads (weights beside the config: %s)', async (weights) => {
  const folder = await unpackCheckpoint('t5-encoder', await temporary());
  if (!weights) await rm(join(folder, 'model.safetensors'));
  const plan = await planFor(folder, { maxMemory: { cpu: '1GiB' } });
  await using model = await AutoModel.fromPretrained(await unpackCheckpoint('t5-encoder', await temporary()));
  expect(plan.size).toBe(model.getMemoryFootprint());
  const refused = AutoModelForSeq2SeqLM.fromPretrained(folder);
  await expect(refused).rejects.toThrow(UnsupportedError);
  await expect(refused).rejects.toThrow(/T5EncoderModel is no model of this class; use AutoModel$/);
});
