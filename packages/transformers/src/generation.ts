import { ConfigError } from '@q/config';
import {
  StepReader,
  type FinishReason,
  type GenerationRequest,
  type GenerationStats,
  type GenerationStep,
} from '@q/generate';

/** The finished result of {@link Generation}. */
export interface GenerationResult {
  /** Prompt and new ids of each sequence. */
  readonly sequences: readonly (readonly number[])[];
  /** New ids of each sequence, the end token included. */
  readonly newTokens: readonly (readonly number[])[];
  /**
   * New text of each sequence, without special tokens and stop strings: behind the decoded prompt it is what the whole
   * decodes to. Empty without a tokenizer.
   */
  readonly texts: readonly string[];
  /** The first text. */
  readonly text: string;
  readonly finishReasons: readonly FinishReason[];
  readonly stats: GenerationStats;
}

type Steps = AsyncGenerator<GenerationStep, void, void>;

/** What a generation runs. */
export interface GenerationPlan {
  readonly requests: readonly GenerationRequest[];
  /** Gives the requests to the engine. */
  submit(): Steps;
}

/**
 * A generation under way: iterate it for tokens as they come, or await it for the result. It starts with the first of
 * these, once; what is wrong with its options rejects both. Leaving a `for await` loop early stops it and frees its
 * memory.
 */
export class Generation extends Promise<GenerationResult> implements AsyncIterable<GenerationStep> {
  readonly #plan: () => GenerationPlan;
  readonly #resolve: (result: GenerationResult | PromiseLike<GenerationResult>) => void;
  #isStarted = false;
  #isAwaited = false;

  /** What `then`, `catch` and `finally` give is a plain promise. */
  static override get [Symbol.species](): PromiseConstructor {
    return Promise;
  }

  constructor(plan: () => GenerationPlan) {
    let settle: (result: GenerationResult | PromiseLike<GenerationResult>) => void = () => undefined;
    super((resolve) => (settle = resolve));
    this.#resolve = settle;
    this.#plan = plan;
  }

  [Symbol.asyncIterator](): Steps {
    return this.#start().submit();
  }

  // An await calls this, as do catch and finally.
  override then<A = GenerationResult, B = never>(
    onFulfilled?: ((result: GenerationResult) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    if (!this.#isAwaited) {
      this.#isAwaited = true;
      this.#resolve(this.#collect());
    }
    return super.then(onFulfilled, onRejected);
  }

  /** What to run; a plan that fails does so at the first step. */
  #start(): GenerationPlan {
    const once = !this.#isStarted;
    this.#isStarted = true;
    try {
      if (once) return this.#plan();
      throw new ConfigError('generate', 'this generation was already started', { fix: 'call generate() again' });
    } catch (error) {
      const fail = () => {
        throw error;
      };
      return { requests: [], submit: () => new StepReader(fail) };
    }
  }

  async #collect(): Promise<GenerationResult> {
    const plan = this.#start();
    const { requests } = plan;
    const newTokens: number[][] = requests.map(() => []);
    const texts = requests.map(() => '');
    const finishReasons: FinishReason[] = [];
    let stats: GenerationStats | undefined;
    for await (const step of plan.submit()) {
      newTokens[step.sequence].push(step.tokenId);
      texts[step.sequence] += step.text;
      if (step.finishReason) finishReasons[step.sequence] = step.finishReason;
      stats = step.stats ?? stats;
    }
    return {
      sequences: requests.map(({ ids }, i) => [...ids, ...newTokens[i]]),
      newTokens,
      texts,
      text: texts[0],
      finishReasons,
      stats: stats!,
    };
  }
}
