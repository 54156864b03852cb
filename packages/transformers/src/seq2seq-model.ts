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
}
