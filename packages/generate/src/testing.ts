// Helpers of this package's tests: small models with random weights on the reference backend.
import { buildModel, parameterSlots, parseModelConfig, type CausalLM, type Model, type Seq2SeqLM } from '@q/models';
import {
  denseWeight,
  Backend,
  fillRandom,
  ReferenceDriver,
  type BackendOptions,
  type Driver,
  type FloatDType,
  type Tensor,
} from '@q/tensor';
import { afterEach } from 'vitest';
import { PastState } from './forward.js';
import type { GenerationRequest, GenerationStep } from './options.js';

/** A config.json of a Llama with 2 layers, 50 tokens and a context of 64. */
export const llamaText = (rope: Record<string, unknown> = {}, other: Record<string, unknown> = {}): string =>
  JSON.stringify({
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: 16,
    intermediate_size: 24,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    vocab_size: 50,
    max_position_embeddings: 64,
    rms_norm_eps: 1e-5,
    hidden_act: 'silu',
    tie_word_embeddings: false,
    rope_parameters: { rope_type: 'default', rope_theta: 100, ...rope },
    ...other,
  });

const t5Text = JSON.stringify({
  model_type: 't5',
  d_model: 16,
  d_kv: 6,
  d_ff: 24,
  num_layers: 2,
  num_heads: 2,
  vocab_size: 50,
  relative_attention_num_buckets: 8,
  relative_attention_max_distance: 12,
  feed_forward_proj: 'gated-gelu',
});

const opened: Backend[] = [];
afterEach(async () => {
  for (const backend of opened.splice(0)) await backend.close();
});

/** A backend that is closed after the test. */
export function backendOf(driver: Driver = new ReferenceDriver(), options?: BackendOptions): Backend {
  const backend = new Backend(driver, options);
  opened.push(backend);
  return backend;
}

/** Fills a model with random weights; `change` may edit those of a parameter. */
export function randomModel(
  backend: Backend,
  text = llamaText(),
  change: (name: string, values: Tensor) => void = () => undefined,
): CausalLM {
  return filled(buildModel(parseModelConfig(text), 'causalLM'), backend, change);
}

/** A T5 with random weights: 50 tokens, 2 layers in each stack. */
export const randomT5 = (backend: Backend): Seq2SeqLM =>
  filled(buildModel(parseModelConfig(t5Text), 'seq2seqLM'), backend);

function filled<M extends Model>(
  model: M,
  backend: Backend,
  change: (name: string, values: Tensor) => void = () => undefined,
): M {
  parameterSlots(model).forEach((slot, seed) => {
    const values = backend.allocate(slot.shape, 'f32').keep();
    fillRandom(values, { kind: 'normal', seed, scale: slot.shape.length === 1 ? 1 : 0.5 });
    change(slot.name, values);
    if (slot.kind === 'linear') slot.load(denseWeight(values));
    else slot.load(values);
  });
  return model;
}

export const greedy = { doSample: false, temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

export const request = (
  ids: readonly number[],
  maxNewTokens: number,
  change: Partial<GenerationRequest> = {},
): GenerationRequest => ({ ids, maxNewTokens, eosTokenIds: [], stopStrings: [], sampling: greedy, ...change });

/** Greedy tokens of an encoder-decoder, as {@link stepByStep}. */
export async function translateStepByStep(
  model: Seq2SeqLM,
  backend: Backend,
  encoderIds: readonly number[],
  ids: readonly number[],
  count: number,
): Promise<number[]> {
  using past = new PastState(model, backend, { sequences: 1, maxLength: ids.length + count, dtype: 'f32' });
  past.encode([encoderIds]).dispose();
  return await continued(model, backend, past, ids, count); // the past lives until then
}

/**
 * Greedy tokens one by one, anew where the model rotates a longer text otherwise; without batches, captured programs or
 * sampling on the device.
 */
export async function stepByStep(
  model: CausalLM,
  backend: Backend,
  ids: readonly number[],
  count: number,
  dtype: FloatDType = 'f32',
): Promise<number[]> {
  const reached = model.rebuildAt?.find((length) => length > ids.length && length < ids.length + count);
  if (reached !== undefined) {
    const first = await stepByStep(model, backend, ids, reached - ids.length, dtype);
    const rest = await stepByStep(model, backend, [...ids, ...first], count - first.length, dtype);
    return [...first, ...rest];
  }
  using past = new PastState(model, backend, { sequences: 1, maxLength: ids.length + count, dtype });
  return await continued(model, backend, past, ids, count); // the past lives until then
}

async function continued(
  model: CausalLM,
  backend: Backend,
  past: PastState,
  ids: readonly number[],
  count: number,
): Promise<number[]> {
  const tokens: number[] = [];
  for (let next = [...ids]; tokens.length < count; next = [tokens[tokens.length - 1]]) {
    const logits = backend.scope(() => model.logits(past.forward([next])));
    const row = ((await logits.data()) as Float32Array).subarray(-model.vocabSize);
    tokens.push(row.indexOf(row.reduce((max, value) => Math.max(max, value), -Infinity)));
    logits.dispose();
  }
  return tokens;
}

/** All tokens of an iterator, by sequence. */
export async function collect(steps: AsyncIterable<GenerationStep>): Promise<number[][]> {
  const tokens: number[][] = [];
  for await (const { sequence, tokenId } of steps) (tokens[sequence] ??= []).push(tokenId);
  return tokens;
}
