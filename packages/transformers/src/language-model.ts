import { assertKnownKeys, GENERATION_OPTION_NAMES } from '@q/config';
import { Engine, PastState } from '@q/generate';
import { isEncoderDecoder, type CausalLM } from '@q/models';
import type { Tensor } from '@q/tensor';
import type { ForwardInput } from './forward-input.js';
import type { ModelOutput } from './model-output.js';
import { Generation } from './generation.js';
import {
  decoderInputNames,
  generateInputNames,
  requestsFor,
  type GenerateOptions,
  type Seq2SeqGenerateOptions,
} from './generation-options.js';
import { PretrainedModel, type ModelParts } from './model.js';
import type { Tokenizer } from './tokenizer/tokenizer.js';

/** What a language model's pass gives. */
export type LanguageModelOutput = ModelOutput & { readonly logits: Tensor };

/** A model that writes text, on its device. */
export abstract class LanguageModel<M extends CausalLM> extends PretrainedModel<M> {
  readonly #engine: Engine;

  constructor(parts: ModelParts<M>) {
    super(parts);
    this.#engine = new Engine(parts.model, parts.backend, { ...parts.engine, tokenDecoder: parts.tokenizer });
  }

  override forward(input: ForwardInput): LanguageModelOutput {
    return super.forward(input) as LanguageModelOutput;
  }

  /**
   * Room for the keys and values of a batch, for {@link forward} in steps; dispose it when done.
   * @param options.maxLength most tokens of a sequence; of an encoder-decoder those of its decoder
   * @throws ConfigError for options, OutOfMemoryError, DisposedError
   */
  createPast(options: { sequences: number; maxLength: number }): PastState {
    this.assertLive('createPast');
    assertKnownKeys('createPast', options, ['sequences', 'maxLength']);
    return new PastState(this.parts.model, this.backend, { ...options, ...this.parts.engine });
  }

  /** One call of the engine. */
  protected generation(options: GenerateOptions & Seq2SeqGenerateOptions): Generation {
    const plan = outcomeOf(() => {
      this.assertLive('generate');
      const { vocabSize, maxContext } = this.parts.model;
      const encodes = isEncoderDecoder(this.parts.model);
      const names = encodes ? [...generateInputNames, ...decoderInputNames] : generateInputNames;
      assertKnownKeys('generate', options, [...names, ...GENERATION_OPTION_NAMES]);
      const { generationConfig: base } = this;
      const tokenizer = this.#tokenizerFor(options);
      const { config } = this;
      const startTokenId = 'decoderStartTokenId' in config ? config.decoderStartTokenId : null;
      const requests = requestsFor(options, { base, tokenizer, vocabSize, maxContext, encodes, startTokenId });
      const { signal } = options;
      return { requests, submit: () => this.#engine.submit(requests, { signal }) };
    });
    return new Generation(plan);
  }

  /** @throws what was wrong with the tokenizer's files, when the prompt needs one. */
  #tokenizerFor({ inputIds }: GenerateOptions): Tokenizer | undefined {
    const { tokenizer, tokenizerProblem } = this.parts;
    if (tokenizerProblem && inputIds === undefined) throw tokenizerProblem;
    return tokenizer;
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
