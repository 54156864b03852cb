import { assertCallback, assertKnownKeys, assertSignal } from '@q/config';
import { scoreWindows } from '@q/generate';
import type { CausalLM } from '@q/models';
import type { Generation } from './generation.js';
import type { GenerateOptions } from './generation-options.js';
import { LanguageModel } from './language-model.js';

/** A causal language model on its device. Dispose it (`await using`, or `dispose()`) to free its memory. */
export class CausalModel extends LanguageModel<CausalLM> {
  /**
   * Continues prompts. Iterate the result for tokens as they come, or await it for all. Calls are served one after the
   * other.
   * @returns a promise that rejects (and whose iteration throws) ConfigError and UnsupportedError for options,
   *   NumericsError when logits are not finite, OutOfMemoryError, DisposedError, and the signal's reason on abort
   */
  generate(options: GenerateOptions): Generation {
    return this.generation(options);
  }

  /**
   * Mean negative log likelihood of tokens 1.. of each window; exp of their mean is the perplexity.
   * @param windows lists of at least 2 ids that fit into the context
   * @throws ConfigError for windows and options, NumericsError for a mean that is not finite, DisposedError; the
   *   signal's reason on abort
   */
  async score(
    windows: readonly (readonly number[])[],
    options: { signal?: AbortSignal; onWindow?: (index: number, mean: number) => void } = {},
  ): Promise<number[]> {
    this.assertLive('score');
    assertKnownKeys('score', options, ['signal', 'onWindow']);
    const { signal, onWindow } = options;
    assertSignal('score', signal);
    assertCallback('score', 'onWindow', onWindow);
    const { model, engine } = this.parts;
    const ended = AbortSignal.any([this.closing.signal, ...(signal ? [signal] : [])]);
    return scoreWindows(model, this.backend, windows, { dtype: engine.dtype, signal: ended, onWindow });
  }
}
