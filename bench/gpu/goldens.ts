// Golden checkpoints on a device: what the original Python libraries gave beside what Q gives.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForSeq2SeqLM,
  numericsModes,
  openCheckpoint,
  Seq2SeqModel,
  type CausalModel,
  type ModelOutput,
  type PretrainedModel,
} from '@q/transformers';
import { decodeBytes, type Tensor } from '@q/tensor';
import { relativeError } from '@q/tensor/conformance';

/** A safetensors file as a reader of tensors; `await using` closes it. */
export async function tensorsOf(folder: string, baseName: string) {
  const checkpoint = await openCheckpoint(folder, { baseName });
  const bytes = (name: string) => checkpoint.read(name);
  const numbers = async (name: string) =>
    Array.from(decodeBytes(checkpoint.tensor(name).dtype, await bytes(name)) as ArrayLike<number | bigint>, Number);
  return { checkpoint, bytes, numbers, [Symbol.asyncDispose]: () => checkpoint.close() };
}

type Expected = Awaited<ReturnType<typeof tensorsOf>>;

/** Rows of an integer tensor. */
async function rowsOf({ checkpoint, numbers }: Expected, name: string): Promise<number[][]> {
  const [count, width] = checkpoint.tensor(name).shape;
  const values = await numbers(name);
  return Array.from({ length: count }, (_, row) => values.slice(row * width, (row + 1) * width));
}

/** Largest difference where the mask (if any) is 1. */
async function largest(actual: Tensor, { numbers }: Expected, key: string, mask?: readonly number[]): Promise<number> {
  const [got, wanted] = [(await actual.data()) as Float32Array, await numbers(key)];
  const width = wanted.length / (mask?.length ?? 1);
  return wanted.reduce(
    (max, value, i) => (mask?.[Math.floor(i / width)] === 0 ? max : Math.max(max, Math.abs(value - got[i]))),
    0,
  );
}

/** Which output is compared with which tensor of expected.safetensors. */
const outputs = [
  ['logits', 'logits'],
  ['lastHiddenState', 'last_hidden_state'],
  ['poolerOutput', 'pooler_output'],
  ['encoderLastHiddenState', 'encoder_last_hidden_state'],
] as const satisfies readonly (readonly [keyof ModelOutput, string])[];

/** Differences of a batch, padded and its first row alone. */
async function passes(model: PretrainedModel, expected: Expected): Promise<Record<string, number>> {
  const has = (name: string) => expected.checkpoint.tensors.has(name);
  const inputIds = await rowsOf(expected, 'input_ids');
  const attentionMask = await rowsOf(expected, 'attention_mask');
  const tokenTypeIds = has('token_type_ids') ? await rowsOf(expected, 'token_type_ids') : undefined;
  const decoderInputIds = has('decoder_input_ids') ? await rowsOf(expected, 'decoder_input_ids') : undefined;
  const input = (rows: number) => ({
    inputIds: inputIds.slice(0, rows),
    ...(tokenTypeIds && { tokenTypeIds: tokenTypeIds.slice(0, rows) }),
    ...(decoderInputIds && { decoderInputIds: decoderInputIds.slice(0, rows) }),
  });
  using padded = model.forward({ ...input(inputIds.length), attentionMask });
  using alone = model.forward(input(1));
  const found: Record<string, number> = {};
  for (const [name, key] of outputs) {
    const [one, all] = [alone[name], padded[name]];
    if (one && has(key)) found[name] = await largest(one, expected, key);
    const ofTexts = decoderInputIds ? name === 'encoderLastHiddenState' : name !== 'poolerOutput';
    const mask = ofTexts ? attentionMask.flat() : undefined;
    if (all && has(`${key}_padded`)) found[`${name}Padded`] = await largest(all, expected, `${key}_padded`, mask);
  }
  return found;
}

/** Difference of cached steps behind the padded batch. */
async function steps(model: CausalModel | Seq2SeqModel, expected: Expected): Promise<number> {
  const inputIds = await rowsOf(expected, 'input_ids');
  const translates = model instanceof Seq2SeqModel;
  const stepIds = await rowsOf(expected, translates ? 'step_decoder_input_ids' : 'step_input_ids');
  const [rows, count, vocab] = expected.checkpoint.tensor('logits_step').shape;
  const wanted = await expected.numbers('logits_step');
  using past = model.createPast({ sequences: rows, maxLength: inputIds[0].length + count });
  const attentionMask = await rowsOf(expected, 'attention_mask');
  const begin = translates ? { decoderInputIds: await rowsOf(expected, 'decoder_input_ids') } : {};
  model.forward({ inputIds, attentionMask, ...begin, past }).dispose();
  let most = 0;
  for (let step = 0; step < count; step++) {
    const ids = stepIds.map((row) => [row[step]]);
    using output = translates ? model.forward({ decoderInputIds: ids, past }) : model.forward({ inputIds: ids, past });
    const got = (await output.logits.data()) as Float32Array;
    got.forEach((value, i) => {
      const at = (Math.floor(i / vocab) * count + step) * vocab + (i % vocab);
      most = Math.max(most, Math.abs(value - wanted[at]));
    });
  }
  return most;
}

/** The class of a golden: those of encoder-decoders have ids for the decoder. */
const classFor = ({ checkpoint }: Expected) =>
  checkpoint.tensors.has('decoder_input_ids') ? AutoModelForSeq2SeqLM : AutoModelForCausalLM;

/** Differences of one golden. */
async function golden(folder: string, deviceMap: string): Promise<Record<string, number>> {
  await using expected = await tensorsOf(folder, 'expected');
  const options = { deviceMap, torchDtype: 'float32' };
  if (!expected.checkpoint.tensors.has('logits_step')) {
    await using model = await AutoModel.fromPretrained(folder, options);
    const found = await passes(model, expected); // before the model goes
    return found;
  }
  await using model = await classFor(expected).fromPretrained(folder, options);
  return { ...(await passes(model, expected)), steps: await steps(model, expected) };
}

/** Model goldens in f32: largest absolute errors, alone, padded and in cached steps. */
export async function models(folder: string, deviceMap: string): Promise<unknown> {
  const results: Record<string, unknown> = {};
  for (const name of readdirSync(folder).sort())
    results[name] = await golden(join(folder, name), deviceMap).catch((error: Error) => ({ error: error.message }));
  return results;
}

const formats = ['nf4', 'fp4', 'nf4-nested-bf16', 'int8', 'int8-skip'] as const;

/** What a model gives beside what Python gave. */
async function compared(model: CausalModel | Seq2SeqModel, expected: Expected, format: string): Promise<unknown> {
  const inputIds = await rowsOf(expected, 'input_ids');
  const greedy = await expected.numbers(`greedy.${format}`);
  const [footprint] = await expected.numbers(`footprint.${format}`);
  const translates = model instanceof Seq2SeqModel;
  // The tokens of a decoder begin with its start token.
  const prompt = translates ? 1 : inputIds[0].length;
  using output = translates
    ? model.forward({ inputIds, decoderInputIds: await rowsOf(expected, 'decoder_input_ids') })
    : model.forward({ inputIds });
  const { sequences } = await model.generate({
    inputIds: inputIds.slice(0, 1),
    maxNewTokens: greedy.length - prompt,
    doSample: false,
    eosTokenId: null,
  });
  return {
    logits: relativeError((await output.logits.data()) as Float32Array, await expected.numbers(`logits.${format}`)),
    sameTokens: sequences[0].filter((id, i) => id === greedy[i]).length - prompt,
    tokens: greedy.length - prompt,
    footprint: model.getMemoryFootprint() === footprint,
  };
}

/**
 * Checkpoints that bitsandbytes saved: logits, greedy tokens, footprint, with fused operators and with Python's
 * roundings.
 */
export async function checkpoints(folder: string, deviceMap: string): Promise<unknown> {
  const results: Record<string, unknown> = {};
  for (const name of readdirSync(folder).sort()) {
    if (!existsSync(join(folder, name, 'expected.safetensors'))) continue;
    await using expected = await tensorsOf(join(folder, name), 'expected');
    for (const format of formats.filter((each) => existsSync(join(folder, name, each)))) {
      const measured: Record<string, unknown> = {};
      for (const numerics of numericsModes) {
        await using model = await classFor(expected).fromPretrained(join(folder, name, format), {
          deviceMap,
          numerics,
        });
        measured[numerics] = await compared(model, expected, format);
      }
      results[`${name} ${format}`] = measured;
    }
  }
  return results;
}
