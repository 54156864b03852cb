import type { Tensor } from '../core/tensor.js';
import { checkActivation, checkDType, checkIndices, checkShape } from './check.js';

/** Per-sequence sampling state on the device, one row per sequence. */
export interface SamplingState {
  /** f32 [B, 4]: temperature, topP, minP, repetitionPenalty. */
  readonly floats: Tensor;
  /** i32 [B, 4]: doSample, topK (0: all), seed low word, seed high word. */
  readonly ints: Tensor;
  /** i32 [B]: tokens generated so far; the counter of the Philox generator. */
  readonly counters: Tensor;
  /** i32 [B, capacity]: prompt and generated ids, for the repetition penalty. */
  readonly history?: Tensor;
  /** i32 [B]. */
  readonly historyLengths?: Tensor;
}

/**
 * Draws one token per row of logits [B, V]: repetition penalty, then for sampling rows temperature, top-k, top-p and
 * min-p, softmax and inversion with Philox4x32-10 (Salmon et al. 2011); greedy rows take the argmax.
 * @returns i32 [B]
 */
export function sample(logits: Tensor, state: SamplingState): Tensor<'i32'> {
  checkActivation('sample', 'logits', logits);
  checkShape('sample', 'logits', logits, ['B', 'V']);
  const [rows, width] = logits.shape;
  checkState('sample', state, rows);
  checkDType('sample', 'floats', state.floats, 'f32');
  checkShape('sample', 'floats', state.floats, [rows, 4]);
  checkDType('sample', 'ints', state.ints, 'i32');
  checkShape('sample', 'ints', state.ints, [rows, 4]);
  const out = logits.backend.empty([rows], 'i32');
  logits.backend.submit('sample', {
    logits: logits.ref(),
    out: out.ref(),
    floats: state.floats.ref(),
    ints: state.ints.ref(),
    counters: state.counters.ref(),
    history: state.history?.ref(),
    historyLengths: state.historyLengths?.ref(),
    rows,
    width,
    historyCapacity: state.history?.dim(1) ?? 0,
  });
  return out;
}

/**
 * Feeds sampled tokens (i32 [B]) back: token ids become them; positions, context lengths and counters grow by one; the
 * history takes them.
 */
export function advance(
  sampled: Tensor,
  target: { tokenIds: Tensor; positions: Tensor; contextLengths: Tensor },
  state: SamplingState,
): void {
  const rows = sampled.count;
  const { tokenIds, positions, contextLengths } = target;
  for (const [name, tensor] of Object.entries({ sampled, tokenIds, positions, contextLengths }))
    checkIndices('advance', name, tensor, [rows]);
  checkState('advance', state, rows);
  sampled.backend.submit('advance', {
    sampled: sampled.ref(),
    tokenIds: target.tokenIds.ref(),
    positions: target.positions.ref(),
    contextLengths: target.contextLengths.ref(),
    counters: state.counters.ref(),
    history: state.history?.ref(),
    historyLengths: state.historyLengths?.ref(),
    rows,
    historyCapacity: state.history?.dim(1) ?? 0,
  });
}

function checkState(op: string, state: SamplingState, rows: number): void {
  checkIndices(op, 'counters', state.counters, [rows]);
  if (state.history) checkIndices(op, 'history', state.history, [rows, 'capacity']);
  if (state.historyLengths) checkIndices(op, 'historyLengths', state.historyLengths, [rows]);
}
