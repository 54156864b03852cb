// How likely a model finds texts: log likelihoods of given tokens.
import { assertInteger, ConfigError, describeValue, NumericsError } from '@q/config';
import type { CausalLM, Seq2SeqLM } from '@q/models';
import { crossEntropy, type Backend, type FloatDType, type Tensor } from '@q/tensor';
import { passOver, passOverPairs } from './pass.js';
import { assertFits, assertTokenIds } from './requests.js';

/** Rows of logits made at a time when scoring, so that a large vocabulary needs little memory. */
const scoringRows = 256;

/** A label that is not scored, as in Python. */
export const IGNORED_LABEL = -100;

interface ScoringOptions {
  readonly dtype: FloatDType;
  readonly signal?: AbortSignal;
}

/**
 * Negative log likelihoods of tokens 1.. of each window given those before it.
 * @param windows lists of at least 2 ids that fit into the context
 * @param options.onWindow called after each window with its mean
 * @returns mean negative log likelihood per window
 * @throws ConfigError for windows, NumericsError for a mean that is not finite; the signal's reason on abort
 */
export async function scoreWindows(
  model: CausalLM,
  backend: Backend,
  windows: readonly (readonly number[])[],
  { dtype, signal, onWindow }: ScoringOptions & { readonly onWindow?: (index: number, mean: number) => void },
): Promise<number[]> {
  checkWindows(windows, model);
  const means: number[] = [];
  for (const [index, window] of windows.entries()) {
    signal?.throwIfAborted();
    const pass = () => passOver({ backend, dtype }, [{ ids: window, start: 0 }], (given) => model.forward(given));
    using hidden = backend.cancellable(signal, () => backend.scope(pass));
    const mean = meanOf(await lossesOf(model, hidden, window.slice(1), signal), `window ${index}`);
    means.push(mean);
    onWindow?.(index, mean);
  }
  return means;
}

/** A text for the encoder, and what the decoder is to write. */
export interface ScoredPair {
  readonly inputIds: readonly number[];
  /** Token ids; {@link IGNORED_LABEL} where none is scored. */
  readonly labels: readonly number[];
}

interface PairOptions extends ScoringOptions {
  /** What the decoder begins with: it reads this, then the labels, each of which is scored given those before it. */
  readonly startTokenId: number;
  /** What the decoder reads in place of an ignored label; needed only where a scored one follows it. */
  readonly padTokenId?: number | null;
  /** Called after each pair with its mean and the log likelihood of each label, 0 for those that are ignored. */
  readonly onPair?: (index: number, mean: number, logLikelihoods: Float32Array) => void;
}

/**
 * Negative log likelihoods of labels given the text that the encoder reads and the labels before.
 * @returns mean negative log likelihood per pair, of the labels that are not ignored
 * @throws ConfigError for pairs and options, NumericsError for a mean that is not finite; the signal's reason on abort
 */
export async function scorePairs(
  model: Seq2SeqLM,
  backend: Backend,
  pairs: readonly ScoredPair[],
  options: PairOptions,
): Promise<number[]> {
  checkPairs(pairs, model, options);
  const { dtype, signal, onPair } = options;
  const means: number[] = [];
  for (const [index, { inputIds, labels }] of pairs.entries()) {
    signal?.throwIfAborted();
    const targets = [{ ids: shiftedRight(labels, options), start: 0 }];
    const pass = () => passOverPairs({ backend, dtype }, model, [{ ids: inputIds, start: 0 }], targets).hidden;
    using hidden = backend.cancellable(signal, () => backend.scope(pass));
    const losses = await lossesOf(model, hidden, labels.slice(0, hidden.dim(0)), signal);
    const mean = meanOf(
      losses.filter((_, i) => labels[i] !== IGNORED_LABEL),
      `pair ${index}`,
    );
    means.push(mean);
    onPair?.(
      index,
      mean,
      Float32Array.from(labels, (label, i) => (label === IGNORED_LABEL ? 0 : -losses[i])),
    );
  }
  return means;
}

/** What the decoder reads to write the labels, as far as one is scored. */
function shiftedRight(labels: readonly number[], { startTokenId, padTokenId }: PairOptions): number[] {
  const last = labels.findLastIndex((label) => label !== IGNORED_LABEL);
  return [startTokenId, ...labels.slice(0, last).map((label) => (label === IGNORED_LABEL ? padTokenId! : label))];
}

/**
 * Negative log likelihood of a token for each row of hidden states.
 * @param targets as many as rows that count; {@link IGNORED_LABEL} gives a number without meaning
 */
async function lossesOf(
  model: CausalLM,
  hidden: Tensor,
  targets: readonly number[],
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const { backend } = hidden;
  const all = new Float32Array(targets.length);
  for (let start = 0; start < targets.length; start += scoringRows) {
    const ids = targets.slice(start, start + scoringRows).map((id) => (id === IGNORED_LABEL ? 0 : id));
    const make = () =>
      crossEntropy(model.logits(hidden.slice(start, start + ids.length)), backend.tensor(ids, [ids.length], 'i32'));
    using losses = backend.cancellable(signal, () => backend.scope(make));
    all.set(await losses.data(), start);
    signal?.throwIfAborted();
  }
  return all;
}

/** @throws NumericsError for a mean that is not finite */
function meanOf(losses: Float32Array, what: string): number {
  const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  if (Number.isFinite(mean)) return mean;
  throw new NumericsError('score', `the mean of ${what} is ${mean}`, {
    why: 'its logits are not finite: a weight is damaged, or a value outgrew its dtype',
    fix: 'load with checkFinite: true to find the first layer',
  });
}

function checkWindows(windows: unknown, model: CausalLM): void {
  if (!Array.isArray(windows) || windows.length === 0)
    throw new ConfigError('score', `windows is ${describeValue(windows)}`, {
      why: 'it must be a list of lists of token ids',
    });
  for (let i = 0; i < windows.length; i++) {
    const window: unknown = windows[i];
    assertTokenIds('score', `windows[${i}]`, window, model.vocabSize);
    if (window.length < 2)
      throw new ConfigError('score', `windows[${i}] has ${window.length} tokens`, {
        why: 'the first token of a window is given, so it takes 2 to score one',
      });
    assertFits('score', `windows[${i}]`, window.length, model);
  }
}

function checkPairs(pairs: unknown, model: Seq2SeqLM, { startTokenId, padTokenId }: PairOptions): void {
  assertInteger('score', 'decoderStartTokenId', startTokenId, { min: 0, max: model.vocabSize - 1 });
  if (!Array.isArray(pairs) || pairs.length === 0)
    throw new ConfigError('score', `pairs is ${describeValue(pairs)}`, {
      why: 'it must be a list of { inputIds, labels }',
    });
  for (let i = 0; i < pairs.length; i++) {
    const { inputIds, labels } = (pairs[i] ?? {}) as Partial<ScoredPair>;
    assertTokenIds('score', `inputIds of pairs[${i}]`, inputIds, model.vocabSize);
    if (inputIds.length === 0) throw new ConfigError('score', `inputIds of pairs[${i}] is an empty list`);
    assertFits('score', `inputIds of pairs[${i}]`, inputIds.length, model);
    checkLabels(`labels of pairs[${i}]`, labels, model, padTokenId ?? undefined);
  }
}

function checkLabels(name: string, labels: unknown, model: Seq2SeqLM, padTokenId: number | undefined): void {
  const known: unknown = Array.isArray(labels)
    ? Array.from(labels, (label: unknown) => (label === IGNORED_LABEL ? 0 : label))
    : labels;
  assertTokenIds('score', name, known, model.vocabSize);
  assertFits('score', name, known.length, model);
  const own = labels as readonly number[];
  const last = own.findLastIndex((label) => label !== IGNORED_LABEL);
  if (last < 0)
    throw new ConfigError('score', `${name} has nothing to score`, {
      fix: `give a label that is not ${IGNORED_LABEL}`,
    });
  if (padTokenId === undefined && own.lastIndexOf(IGNORED_LABEL, last) >= 0)
    throw new ConfigError('score', `${name} has ${IGNORED_LABEL} before a label that is scored`, {
      why: 'the decoder reads the padding token in its place, and the model has none',
      fix: `leave ${IGNORED_LABEL} to the end`,
    });
}

/** exp of the mean of the windows' means. @throws ConfigError unless they are numbers, one at least */
export function perplexityOf(means: readonly number[]): number {
  if (!Array.isArray(means) || means.length === 0)
    throw new ConfigError('perplexityOf', `means is ${describeValue(means)}`, { fix: 'give what score() returns' });
  const odd = means.findIndex((mean) => typeof mean !== 'number');
  if (odd >= 0)
    throw new ConfigError('perplexityOf', `means[${odd}] is ${describeValue(means[odd])}, not a number`, {
      fix: 'give what score() returns, awaited',
    });
  return Math.exp(means.reduce((a, b) => a + b, 0) / means.length);
}
