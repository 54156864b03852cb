// Encoders against transformers' outputs: 1e-4 absolute.
import { describe, expect, it } from 'vitest';
import {
  AutoModel,
  AutoModelForCausalLM,
  CheckpointError,
  ConfigError,
  openCheckpoint,
  planFor,
  UnsupportedError,
  type PretrainedModel,
} from './index.js';
import { changedCheckpoint, expectedRows, expectedTensor, temporaryFolders, unpackCheckpoint } from './testing.js';

const temporary = temporaryFolders();
const tolerance = 1e-4;

const load = async (name: string, options: { legacy?: boolean } = {}): Promise<PretrainedModel> =>
  AutoModel.fromPretrained(await unpackCheckpoint(name, await temporary(name), options), { threads: 1 });

/** Largest difference of rows whose mask is 1. */
function largest(actual: ArrayLike<number>, expected: ArrayLike<number>, mask: readonly number[]): number {
  expect(actual.length).toBe(expected.length);
  const width = expected.length / mask.length;
  return Array.from(expected).reduce(
    (max, value, i) => (mask[Math.floor(i / width)] ? Math.max(max, Math.abs(value - actual[i])) : max),
    0,
  );
}

describe.each(['bert', 'bert-legacy-names'])('%s', (name) => {
  const inputIds = expectedRows(name, 'input_ids');
  const attentionMask = expectedRows(name, 'attention_mask');
  const tokenTypeIds = expectedRows(name, 'token_type_ids');

  it.each([false, true])(
    'gives the hidden states and the pooled token, alone and padded (legacy config: %s)',
    async (legacy) => {
      await using model = await load(name, { legacy });
      using padded = model.forward({ inputIds, attentionMask, tokenTypeIds });
      using alone = model.forward({ inputIds: inputIds.slice(0, 1), tokenTypeIds: tokenTypeIds.slice(0, 1) });
      const ones = (count: number) => Array.from({ length: count }, () => 1);
      const compare = async (tensor: typeof padded.lastHiddenState | undefined, key: string, mask: number[]) =>
        expect(
          largest((await tensor!.data()) as Float32Array, expectedTensor(name, key).values, mask),
          key,
        ).toBeLessThanOrEqual(tolerance);
      await compare(padded.lastHiddenState, 'last_hidden_state_padded', attentionMask.flat());
      expect(await padded.data()).toEqual(await padded.lastHiddenState.data());
      await compare(padded.poolerOutput, 'pooler_output_padded', ones(2));
      await compare(alone.lastHiddenState, 'last_hidden_state', ones(inputIds[0].length));
      await compare(alone.poolerOutput, 'pooler_output', ones(1));
      expect(padded.logits).toBeUndefined();
    },
  );

  it('gives a row the same bits alone and in a batch', async () => {
    await using model = await load(name);
    using batch = model.forward({ inputIds, attentionMask, tokenTypeIds });
    using alone = model.forward({ inputIds: inputIds.slice(0, 1), tokenTypeIds: tokenTypeIds.slice(0, 1) });
    const one = await alone.lastHiddenState.data();
    expect((await batch.lastHiddenState.data()).slice(0, one.length)).toEqual(one);
  });

  it('gives hidden states before the first layer and behind each one, and leaves nothing behind', async () => {
    await using model = await load(name);
    const before = model.backend.memory().usedBytes;
    {
      using output = model.forward({ inputIds, attentionMask, tokenTypeIds, outputHiddenStates: true });
      const layers = (model.config as { numLayers: number }).numLayers;
      expect(output.hiddenStates!.map(({ shape }) => shape)).toEqual(
        Array.from({ length: layers + 1 }, () => output.lastHiddenState.shape),
      );
      expect(await output.hiddenStates![layers].data()).toEqual(await output.lastHiddenState.data());
      expect(await output.hiddenStates![0].data()).not.toEqual(await output.hiddenStates![1].data());
    }
    expect(model.backend.memory().usedBytes).toBe(before);
  });

  it('refuses what it cannot use', async () => {
    await using model = await load(name);
    const most = (model.config as { maxPositionEmbeddings: number }).maxPositionEmbeddings;
    for (const [input, message] of [
      [{ inputIds, tokenTypeIds: [[0]] }, /tokenTypeIds must have the shape/],
      [{ inputIds, tokenTypeIds: inputIds.map((row) => row.map(() => 2)) }, /from 0 to 1/],
      [{ inputIds, positionIds: inputIds.map((row) => row.map(() => most)) }, new RegExp(`from 0 to ${most - 1}`)],
      [{ inputIds: [Array.from({ length: most + 1 }, () => 1)] }, new RegExp(`${most + 1} tokens`)],
    ] as const) {
      expect(() => model.forward(input)).toThrow(ConfigError);
      expect(() => model.forward(input)).toThrow(message);
    }
    const folder = await unpackCheckpoint(name, await temporary(name));
    await expect(AutoModelForCausalLM.fromPretrained(folder)).rejects.toThrow(UnsupportedError);
  });
});

// Python loads such files too, with random numbers for the pooling layer.
describe('a file without the pooling layer', () => {
  const inputIds = expectedRows('bert', 'input_ids');
  const attentionMask = expectedRows('bert', 'attention_mask');
  const tokenTypeIds = expectedRows('bert', 'token_type_ids');
  const isPooler = (name: string) => name.startsWith('pooler.');

  const inTensorFlow = (name: string) =>
    name.replace(/LayerNorm\.weight$/, 'LayerNorm.gamma').replace(/LayerNorm\.bias$/, 'LayerNorm.beta');

  it.each([
    ['of the base model', '', (name: string) => name],
    ['of a model with a head', 'bert.', (name: string) => name],
    ['of a model with a head, by the names of TensorFlow,', 'bert.', inTensorFlow],
  ])('%s gives the same hidden states and no pooled token, and is saved as in Python', async (_, front, old) => {
    const rename = (name: string) => (isPooler(name) ? undefined : front + old(name));
    const folder = await changedCheckpoint('bert', temporary, { rename });
    const whole = await unpackCheckpoint('bert', await temporary('bert'));
    await using model = await AutoModel.fromPretrained(folder, { threads: 1 });
    expect(model.warnings).toEqual([expect.stringMatching(/has no pooler: the model is without one/)]);
    using output = model.forward({ inputIds, attentionMask, tokenTypeIds });
    expect(Object.keys(output)).toEqual(['lastHiddenState']);
    expect(output.poolerOutput).toBeUndefined();
    const expected = expectedTensor('bert', 'last_hidden_state_padded').values;
    const actual = (await output.lastHiddenState.data()) as Float32Array;
    expect(largest(actual, expected, attentionMask.flat())).toBeLessThanOrEqual(tolerance);

    await using full = await AutoModel.fromPretrained(whole, { threads: 1 });
    using pooled = full.forward({ inputIds, attentionMask, tokenTypeIds, outputHiddenStates: true });
    expect(Object.keys(pooled)).toEqual(['lastHiddenState', 'poolerOutput', 'hiddenStates']);
    const { hiddenSize: width } = full.config as unknown as { hiddenSize: number };
    const poolerBytes = 4 * (width * width + width);
    expect(full.getMemoryFootprint() - model.getMemoryFootprint()).toBe(poolerBytes);
    const maxMemory = { cpu: '1GiB' };
    const [plan, larger] = [await planFor(folder, { maxMemory }), await planFor(whole, { maxMemory })];
    expect(larger.size - plan.size).toBe(poolerBytes);
    expect(plan.messages).toContainEqual(expect.objectContaining({ text: expect.stringMatching(/has no pooler/) }));

    const saved = await temporary('saved');
    await model.savePretrained(saved);
    await using before = await openCheckpoint(folder);
    await using after = await openCheckpoint(saved);
    const own = [...before.tensors.keys()].map((name) => name.slice(front.length));
    expect(new Set(after.tensors.keys())).toEqual(new Set(own));
    await using again = await AutoModel.fromPretrained(saved, { threads: 1 });
    using repeated = again.forward({ inputIds, attentionMask, tokenTypeIds });
    expect(await repeated.lastHiddenState.data()).toEqual(actual);
  });

  it('that has a part of it is refused', async () => {
    const rename = (name: string) => (name === 'pooler.dense.weight' ? undefined : name);
    const loading = AutoModel.fromPretrained(await changedCheckpoint('bert', temporary, { rename }));
    await expect(loading).rejects.toThrow(CheckpointError);
    await expect(loading).rejects.toThrow(/lacks 1 of .*pooler\.dense\.weight/);
  });
});
