// Golden checkpoints on a device: what the original Python libraries gave beside what Q gives.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  AutoModel,
  AutoModelForCausalLM,
  numericsModes,
  openCheckpoint,
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
] as const satisfies readonly (readonly [keyof ModelOutput, string])[];

/** Differences of a batch, padded and its first row alone. */
async function passes(model: PretrainedModel, expected: Expected): Promise<Record<string, number>> {
  const has = (name: string) => expected.checkpoint.tensors.has(name);
  const inputIds = await rowsOf(expected, 'input_ids');
  const attentionMask = await rowsOf(expected, 'attention_mask');
  const tokenTypeIds = has('token_type_ids') ? await rowsOf(expected, 'token_type_ids') : undefined;
  using padded = model.forward({ inputIds, attentionMask, ...(tokenTypeIds && { tokenTypeIds }) });
  using alone = model.forward({
    inputIds: inputIds.slice(0, 1),
    ...(tokenTypeIds && { tokenTypeIds: tokenTypeIds.slice(0, 1) }),
  });
  const found: Record<string, number> = {};
  for (const [name, key] of outputs) {
    const [one, all] = [alone[name], padded[name]];
    if (one && has(key)) found[name] = await largest(one, expected, key);
    const mask = name === 'poolerOutput' ? undefined : attentionMask.flat();
    if (all && has(`${key}_padded`)) found[`${name}Padded`] = await largest(all, expected, `${key}_padded`, mask);
  }
  return found;
}

/** Difference of cached steps behind the padded batch. */
async function steps(model: CausalModel, expected: Expected): Promise<number> {
  const inputIds = await rowsOf(expected, 'input_ids');
  const stepIds = await rowsOf(expected, 'step_input_ids');
  const [rows, count, vocab] = expected.checkpoint.tensor('logits_step').shape;
  const wanted = await expected.numbers('logits_step');
  using past = model.createPast({ sequences: rows, maxLength: inputIds[0].length + count });
  model.forward({ inputIds, attentionMask: await rowsOf(expected, 'attention_mask'), past }).dispose();
  let most = 0;
  for (let step = 0; step < count; step++) {
    using output = model.forward({ inputIds: stepIds.map((ids) => [ids[step]]), past });
    const got = (await output.logits.data()) as Float32Array;
    got.forEach((value, i) => {
      const at = (Math.floor(i / vocab) * count + step) * vocab + (i % vocab);
      most = Math.max(most, Math.abs(value - wanted[at]));
    });
  }
  return most;
}

/** Model goldens in f32: largest absolute errors, alone, padded and in cached steps. */
export async function models(folder: string, deviceMap: string): Promise<unknown> {
  const results: Record<string, unknown> = {};
  for (const name of readdirSync(folder).sort()) {
    await using expected = await tensorsOf(join(folder, name), 'expected');
    const options = { deviceMap, torchDtype: 'float32' };
    if (expected.checkpoint.tensors.has('logits_step')) {
      await using model = await AutoModelForCausalLM.fromPretrained(join(folder, name), options);
      results[name] = { ...(await passes(model, expected)), steps: await steps(model, expected) };
    } else {
      await using model = await AutoModel.fromPretrained(join(folder, name), options);
      results[name] = await passes(model, expected);
    }
  }
  return results;
}

const formats = ['nf4', 'fp4', 'nf4-nested-bf16', 'int8', 'int8-skip'] as const;

/** What a model gives beside what Python gave. */
async function compared(model: CausalModel, expected: Expected, format: string): Promise<unknown> {
  const inputIds = await rowsOf(expected, 'input_ids');
  const greedy = await expected.numbers(`greedy.${format}`);
  const [footprint] = await expected.numbers(`footprint.${format}`);
  const prompt = inputIds[0].length;
  using output = model.forward({ inputIds });
  const { sequences } = await model.generate({
    inputIds: [greedy.slice(0, prompt)],
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
    for (const format of formats) {
      const measured: Record<string, unknown> = {};
      for (const numerics of numericsModes) {
        await using model = await AutoModelForCausalLM.fromPretrained(join(folder, name, format), {
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
