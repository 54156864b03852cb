import { assertCallback, assertKnownKeys, assertSignal, ConfigError } from '@q/config';
import { scorePairs, type ScoredPair } from '@q/generate';
import type { Seq2SeqLM } from '@q/models';
import type { Tensor } from '@q/tensor';
import type { ForwardInput } from './forward-input.js';
import type { Generation } from './generation.js';
import type { Seq2SeqGenerateOptions } from './generation-options.js';
import { LanguageModel, type LanguageModelOutput } from './language-model.js';

/** What {@link Seq2SeqModel.forward} reads. With a `past` whose texts were encoded already, `inputIds` are left out. */
export type Seq2SeqInput = Omit<ForwardInput, 'inputIds' | 'tokenTypeIds' | 'positionIds'> &
  Partial<Pick<ForwardInput, 'inputIds'>>;

/** What {@link Seq2SeqModel.forward} gives; `encoderLastHiddenState` of every call that encodes. */
export type Seq2SeqOutput = LanguageModelOutput & { readonly encoderLastHiddenState: Tensor };

/** How {@link Seq2SeqModel.score} scores. */
export interface ScorePairsOptions {
  readonly decoderStartTokenId?: number;
  readonly signal?: AbortSignal;
  readonly onPair?: (index: number, mean: number, logLikelihoods: Float32Array) => void;
}

/**
 * An encoder-decoder on its device: it writes a text that follows from another one. Dispose it (`await using`, or
 * `dispose()`) to free its memory.
 */
export class Seq2SeqModel extends LanguageModel<Seq2SeqLM> {
  /**
   * Encodes a padded batch and runs the decoder over what it has written so far.
   * @returns logits and hidden states of the decoder, and the encoder's output; zero where the masks are 0. The caller
   *   disposes it.
   * @throws ConfigError for ids that are none or do not fit together with their masks or each other; DisposedError
   */
  override forward(input: Seq2SeqInput): Seq2SeqOutput {
    return super.forward(input as ForwardInput) as Seq2SeqOutput;
  }

  /**
   * Writes what follows from each prompt: the encoder reads it once, the decoder continues `decoderInputIds`. Iterate
   * the result for tokens as they come, or await it for all; its `sequences` are those of the decoder. Calls are served
   * one after the other.
   * @returns a promise that rejects (and whose iteration throws) ConfigError and UnsupportedError for options,
   *   NumericsError when logits are not finite, OutOfMemoryError, DisposedError, and the signal's reason on abort
   */
  generate(options: Seq2SeqGenerateOptions): Generation {
    return this.generation(options);
  }

  /**
   * Mean negative log likelihood of the labels of each pair, given its text and the labels before: what Python's
   * `model(input_ids, labels=labels).loss` is for one pair. The decoder reads the labels shifted right, from
   * `decoderStartTokenId` on; labels of -100 are not scored, and read as the padding token where others follow (which
   * has a position like any token, where Python's m2m_100 gives it none).
   * @param pairs ids for the encoder, and what the decoder is to write
   * @param options.decoderStartTokenId default: that of generation_config.json, or of config.json. For mBART give the
   *   language's token, with which Python begins there (the last one of its labels)
   * @param options.onPair called after each pair with its mean and the log likelihood of each label (0: not scored)
   * @throws ConfigError for pairs and options, NumericsError for a mean that is not finite, DisposedError; the signal's
   *   reason on abort
   */
  async score(pairs: readonly ScoredPair[], options: ScorePairsOptions = {}): Promise<number[]> {
    this.assertLive('score');
    assertKnownKeys('score', options, ['signal', 'onPair', 'decoderStartTokenId']);
    const { signal, onPair, decoderStartTokenId } = options;
    assertSignal('score', signal);
    assertCallback('score', 'onPair', onPair);
    const { model, engine, config } = this.parts;
    return scorePairs(model, this.backend, pairs, {
      dtype: engine.dtype,
      startTokenId: decoderStartTokenId ?? this.#startTokenId(),
      padTokenId: config.tokenIds.pad,
      signal: AbortSignal.any([this.closing.signal, ...(signal ? [signal] : [])]),
      onPair,
    });
  }

  /** @throws ConfigError where the model's files name none, or several */
  #startTokenId(): number {
    const { config } = this;
    const stated = this.generationConfig.decoderStartTokenId;
    const start = stated ?? ('decoderStartTokenId' in config ? config.decoderStartTokenId : null);
    if (typeof start === 'number') return start;
    throw new ConfigError('score', 'the model has no decoderStartTokenId', { fix: 'give decoderStartTokenId' });
  }
}
