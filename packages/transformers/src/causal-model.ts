import { assertCallback, assertKnownKeys, assertSignal, GENERATION_OPTION_NAMES } from '@q/config';
import { Engine, PastState, scoreWindows } from '@q/generate';
import type { CausalLM } from '@q/models';
import type { Tensor } from '@q/tensor';
import type { ForwardInput, ModelOutput } from './forward.js';
import { Generation } from './generation.js';
import { generateInputNames, requestsFor, type GenerateOptions } from './generation-options.js';
import { PretrainedModel, type ModelParts } from './model.js';
import type { Tokenizer } from './tokenizer/tokenizer.js';

/** What a language model's pass gives. */
export type LanguageModelOutput = ModelOutput & { readonly logits: Tensor };

/** A causal language model on its device. Dispose it (`await using`, or `dispose()`) to free its memory. */
export class CausalModel extends PretrainedModel<CausalLM> {
  readonly #engine: Engine;

  constructor(parts: ModelParts<CausalLM>) {
    super(parts);
    this.#engine = new Engine(parts.model, parts.backend, parts.engine);
  }

  override forward(input: ForwardInput): LanguageModelOutput {
    return super.forward(input) as LanguageModelOutput;
  }

  /**
   * Room for the keys and values of a batch, for {@link forward} in steps; dispose it when done.
   * @throws ConfigError for options, OutOfMemoryError, DisposedError
   */
  createPast(options: { sequences: number; maxLength: number }): PastState {
    this.assertLive('createPast');
    assertKnownKeys('createPast', options, ['sequences', 'maxLength']);
    return new PastState(this.parts.model, this.backend, { ...options, ...this.parts.engine });
  }

  /**
   * Continues prompts. Iterate the result for tokens as they come, or await it for all. Calls are served one after the
   * other.
   * @returns a promise that rejects (and whose iteration throws) ConfigError and UnsupportedError for options,
   *   NumericsError when logits are not finite, OutOfMemoryError, DisposedError, and the signal's reason on abort
   */
  generate(options: GenerateOptions): Generation {
    const plan = outcomeOf(() => {
      this.assertLive('generate');
      assertKnownKeys('generate', options, [...generateInputNames, ...GENERATION_OPTION_NAMES]);
      const { vocabSize, maxContext } = this.parts.model;
      const { generationConfig: base, tokenizer: decoder } = this;
      const tokenizer = this.#tokenizerFor(options);
      const requests = requestsFor(options, { base, tokenizer, vocabSize, maxContext });
      const { signal } = options;
      return { requests, run: () => this.#engine.run(requests, { decoder, signal }) };
    });
    return new Generation(plan);
  }

  /** @throws what was wrong with the tokenizer's files, when the prompt needs one. */
  #tokenizerFor({ inputIds }: GenerateOptions): Tokenizer | undefined {
    const { tokenizer, tokenizerProblem } = this.parts;
    if (tokenizerProblem && inputIds === undefined) throw tokenizerProblem;
    return tokenizer;
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

  protected override stop(): Promise<void> {
    return this.#engine.dispose();
  }
}

/** What `fn` gives or throws, for later. */
function outcomeOf<T>(fn: () => T): () => T {
  try {
    const value = fn();
    return () => value;
  } catch (error) {
    return () => {
      throw error;
    };
  }
}
