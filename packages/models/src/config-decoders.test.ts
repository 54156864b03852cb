// What is particular to the configs of single decoders: spellings, rules between keys, and what is refused.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { JsonObject } from '@q/config';
import { parseModelConfig } from './registry.js';

const json = (name: string): JsonObject =>
  JSON.parse(readFileSync(new URL(`../fixtures/configs/${name}.json`, import.meta.url), 'utf8')) as JsonObject;

/** The config of a fixture with changed keys; undefined takes one away. */
const read = (name: string, changes: object) =>
  parseModelConfig(
    Object.fromEntries(Object.entries({ ...json(name), ...changes }).filter(([, value]) => value !== undefined)),
  );

describe('gptj', () => {
  const gptj = (changes: object) => read('gptj.config', changes);

  test('the usual spellings stand for its own, and what published files have beside them is read over', () => {
    const usual = { n_embd: undefined, hidden_size: 64, n_positions: undefined, max_position_embeddings: 32 };
    expect(gptj(usual)).toMatchObject({ hiddenSize: 64, maxPositionEmbeddings: 32, headDim: 16 });
    expect(gptj({ n_inner: null })).toMatchObject({ intermediateSize: 256 });
    const published = { rotary: true, scale_attn_weights: true, summary_type: 'cls_index', n_ctx: 64 };
    expect(gptj(published).warnings.map(({ field }) => field)).toEqual(['rotary', 'scale_attn_weights']);
  });

  test.each([
    [{ hidden_size: 32 }, /n_embd is 64 and hidden_size is 32/],
    [{ rotary_dim: 7 }, /rotary_dim is 7; must be even, and at most the 16 elements of a head/],
    [{ rotary_dim: 18 }, /rotary_dim is 18/],
    [{ n_head: 5 }, /n_head is 5; must divide n_embd \(64\)/],
    [{ rotary: false }, /unknown key rotary/],
    [{ rope_scaling: { type: 'linear', factor: 2 } }, /unknown key rope_scaling/],
    [{ n_inner: 0 }, /n_inner is 0/],
  ])('%j is refused', (changes, message) => {
    expect(() => gptj(changes)).toThrow(message);
  });
});
