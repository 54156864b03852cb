// What is particular to DeepSeek V3: a parameter that is always float32, and layers of files for further tokens.
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '@q/loader';
import { AutoModelForCausalLM, planFor, type CausalModel, type LoadModelOptions } from './index.js';
import { changedCheckpoint, expectedRows, temporaryFolders, unpackCheckpoint } from './testing.js';

const name = 'deepseek_v3';
const temporary = temporaryFolders();
const correction = 'model.layers.1.mlp.gate.e_score_correction_bias';
const inputIds = [expectedRows(name, 'input_ids')[0]];
const load = (folder: string, options: LoadModelOptions = {}) =>
  AutoModelForCausalLM.fromPretrained(folder, { threads: 1, ...options });

async function logitsOf(model: CausalModel): Promise<Float32Array> {
  using output = model.forward({ inputIds });
  return (await output.logits.data()) as Float32Array;
}

describe('the correction of the choice', () => {
  // get_memory_footprint() of transformers 5.17.
  it.each([
    ['float32', 537_280],
    ['float16', 268_672],
    ['bfloat16', 268_672],
  ] as const)('is float32 where the model is %s, of %d bytes as in Python', async (torchDtype, bytes) => {
    await using model = await load(await unpackCheckpoint(name, await temporary()), { torchDtype });
    expect(model.getMemoryFootprint()).toBe(bytes);
    const folder = await temporary('saved');
    await model.savePretrained(folder);
    await using saved = await openCheckpoint(folder);
    expect(saved.tensor(correction).dtype).toBe('f32');
    await using again = await load(folder);
    expect(again.warnings).toEqual([]);
    expect(await logitsOf(again)).toEqual(await logitsOf(model));
  });

  it('is float32 in a model of random weights', async () => {
    const folder = await unpackCheckpoint(name, await temporary());
    await using model = await load(folder, { torchDtype: 'bfloat16', loadFormat: 'dummy' });
    expect(model.getMemoryFootprint()).toBe(268_672);
    expect((await logitsOf(model)).every(Number.isFinite)).toBe(true);
  });
});

describe('layers for further tokens', () => {
  const folderWith = (layer: number) =>
    changedCheckpoint(name, temporary, {
      also: {
        [`model.layers.${layer}.eh_proj.weight`]: 'lm_head.weight',
        [`model.layers.${layer}.input_layernorm.weight`]: 'model.norm.weight',
      },
    });

  it('are passed over in silence where the published model has one, as in Python', async () => {
    const folder = await folderWith(61);
    await using model = await load(folder);
    await using plain = await load(await unpackCheckpoint(name, await temporary()));
    expect(model.warnings).toEqual([]);
    expect(await logitsOf(model)).toEqual(await logitsOf(plain));
    expect((await planFor(folder, { maxMemory: { cpu: '1GiB' } })).deviceMap).toEqual({ '': 'cpu' });
  });

  it('are passed over with a line elsewhere', async () => {
    await using model = await load(await folderWith(2));
    expect(model.warnings).toEqual([expect.stringMatching(/2 tensors of the checkpoint that the model does not have/)]);
  });
});
