import { describe, expect, it } from 'vitest';
import type { StateSpec } from './model.js';
import { RmsNorm } from './nn/layers.js';
import { buildModel, parseModelConfig } from './registry.js';
import { keyValueShapes, stateBytes, stateElements } from './state.js';

const owner = new RmsNorm('Norm', 1, 1e-5);
const kv: StateSpec = { kind: 'kv', owner, numKvHeads: 3, headDim: 8 };
const cross: StateSpec = { ...kv, kind: 'cross', numKvHeads: 2 };
const recurrent: StateSpec = { kind: 'recurrent', owner, shape: [4, 16, 5] };

describe('state', () => {
  it('grows by keys and values with each token, and has a fixed size where it is recurrent', () => {
    expect(stateElements(kv)).toEqual({ perToken: 48, perSequence: 0 });
    expect(stateElements(cross)).toEqual({ perToken: 32, perSequence: 0 });
    expect(stateElements({ ...kv, valueDim: 5 })).toEqual({ perToken: 3 * (8 + 5), perSequence: 0 });
    expect(stateElements(recurrent)).toEqual({ perToken: 0, perSequence: 320 });
  });

  it('lies in blocks of 32 tokens, heads before tokens', () => {
    expect(keyValueShapes({ ...kv, valueDim: 5 }, 7)).toEqual({ keys: [7, 3, 32, 8], values: [7, 3, 32, 5] });
  });

  it('is summed over all places, in bytes', () => {
    const state = [kv, recurrent, kv, recurrent];
    expect(stateBytes({ state }, 'f32')).toEqual({ perToken: 4 * 96, perSequence: 4 * 640 });
    expect(stateBytes({ state }, 'bf16')).toEqual({ perToken: 2 * 96, perSequence: 2 * 640 });
    expect(stateBytes({ state: [] }, 'f32')).toEqual({ perToken: 0, perSequence: 0 });
  });

  it('counts both texts of an encoder-decoder', () => {
    const config = parseModelConfig({ model_type: 't5', num_layers: 2, num_heads: 3, d_kv: 8, num_decoder_layers: 4 });
    const model = buildModel(config, 'seq2seqLM');
    expect(stateBytes(model, 'f16')).toEqual({ perToken: 2 * 4 * 2 * 48, perSequence: 0 });
  });
});
