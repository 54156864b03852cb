import {
  ConfigError,
  GENERATION_OPTION_NAMES,
  mergeGenerationConfig,
  UnsupportedError,
  type GenerationConfig,
  type GenerationOptions,
  type ResolvedGenerationOptions,
} from '@q/config';
import type { FinishReason, GenerationRequest, GenerationStats, GenerationStep } from '@q/generate';
import { chatTemplateOptionNames, type ChatMessage, type ChatTemplateOptions } from './chat/options.js';
import { encodePrompt, messageIds } from './chat/prompt.js';
import type { Tokenizer } from './tokenizer/tokenizer.js';

/**
 * What to continue: ids (padded with `attentionMask`, or of any lengths without), one prompt or several, or a
 * conversation or several, which go through the chat template with the options of {@link ChatTemplateOptions}.
 */
export interface GenerateInput extends ChatTemplateOptions {
  readonly inputIds?: readonly (readonly number[])[];
  /** 1 for tokens, 0 for padding; shape of inputIds. */
  readonly attentionMask?: readonly (readonly number[])[];
  readonly prompt?: string;
  readonly prompts?: readonly string[];
  readonly messages?: readonly ChatMessage[] | readonly (readonly ChatMessage[])[];
  /**
   * Put the tokens before (and behind) a prompt that the tokenizer has for texts, such as the begin token; one that the
   * prompt already begins with is not doubled. For prompt and prompts. Default true.
   */
  readonly addSpecialTokens?: boolean;
  /** Non-negative integer for sampling. Default: random. */
  readonly seed?: number;
  readonly signal?: AbortSignal;
}

export type GenerateOptions = GenerateInput & Partial<GenerationOptions>;

const chatInputNames = ['messages', ...chatTemplateOptionNames] as const;

export const generateInputNames = [
  'inputIds',
  'attentionMask',
  'prompt',
  'prompts',
  'addSpecialTokens',
  ...chatInputNames,
  'seed',
  'signal',
] as const;

/** The finished result of {@link Generation}. */
export interface GenerationResult {
  /** Prompt and new ids of each sequence. */
  readonly sequences: readonly (readonly number[])[];
  /** New ids of each sequence, the end token included. */
  readonly newTokens: readonly (readonly number[])[];
  /** New text of each sequence, without special tokens and stop strings; empty without a tokenizer. */
  readonly texts: readonly string[];
  /** The first text. */
  readonly text: string;
  readonly finishReasons: readonly FinishReason[];
  readonly stats: GenerationStats;
}

// What this engine does beside the defaults. An option that is set to something else and not in this list is refused,
// not ignored.
const supported = new Set<string>([
  'maxLength',
  'maxNewTokens',
  'stopStrings',
  'doSample',
  'temperature',
  'topK',
  'topP',
  'minP',
  'repetitionPenalty',
  'padTokenId',
  'bosTokenId',
  'eosTokenId',
  'numReturnSequences',
  'useCache',
  'earlyStopping',
  'lengthPenalty',
  'disableCompile',
  'compileConfig',
  'lowMemory',
  'typicalP',
  'epsilonCutoff',
  'etaCutoff',
]);
const neutral: Readonly<Record<string, unknown>> = {
  useCache: true,
  typicalP: 1,
  epsilonCutoff: 0,
  etaCutoff: 0,
  minLength: 0,
  minNewTokens: 0,
  numBeams: 1,
  noRepeatNgramSize: 0,
  encoderNoRepeatNgramSize: 0,
  encoderRepetitionPenalty: 1,
  outputScores: false,
  outputLogits: false,
  outputAttentions: false,
  outputHiddenStates: false,
  returnDictInGenerate: false,
  removeInvalidValues: false,
  renormalizeLogits: false,
  tokenHealing: false,
  numAssistantTokens: 20,
  numAssistantTokensSchedule: 'constant',
  assistantConfidenceThreshold: 0.4,
  assistantLookbehind: 10,
  targetLookbehind: 10,
  numBeamGroups: 1,
  diversityPenalty: 0,
  isAssistant: false,
  guidanceScale: 1,
  topH: 1,
};

function refuseUnsupported(options: ResolvedGenerationOptions): void {
  for (const name of GENERATION_OPTION_NAMES) {
    const value = options[name];
    if (value === null || value === neutral[name]) continue;
    if (!supported.has(name) || name in neutral) {
      throw new UnsupportedError('generate', `${name} = ${JSON.stringify(value)} is not supported`, {
        fix: 'leave it out; supported: greedy decoding and sampling with temperature, topK, topP, minP, repetitionPenalty',
      });
    }
  }
}

const randomSeed = () => Math.floor(Math.random() * 2 ** 48);

/** Prompts and options of one call as requests for the engine. @throws ConfigError, UnsupportedError */
export function requestsFor(
  options: GenerateOptions,
  base: GenerationConfig,
  tokenizer: Tokenizer | undefined,
): GenerationRequest[] {
  const { input, overrides, seed = randomSeed() } = splitOptions(options);
  const merged = mergeGenerationConfig(base, overrides).resolve();
  refuseUnsupported(merged);
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new ConfigError('generate', 'seed must be a non-negative integer', { got: seed });
  const stopStrings = [merged.stopStrings ?? []].flat();
  if (stopStrings.length > 0 && !tokenizer)
    throw new ConfigError('generate', 'stopStrings need a tokenizer', { fix: 'load a model that has tokenizer.json' });
  const sampling = {
    doSample: merged.doSample,
    temperature: merged.temperature,
    topK: merged.topK,
    topP: merged.topP,
    minP: merged.minP ?? 0,
    repetitionPenalty: merged.repetitionPenalty,
  };
  const eosTokenIds = [merged.eosTokenId ?? []].flat();
  const lists = promptIds(input, tokenizer);
  return lists.flatMap((ids, row) =>
    Array.from({ length: merged.numReturnSequences }, (_, i) => ({
      ids,
      eosTokenIds,
      stopStrings,
      maxNewTokens: merged.maxNewTokens ?? remaining(merged.maxLength, ids.length),
      sampling: { ...sampling, seed: seed + row * merged.numReturnSequences + i },
    })),
  );
}

function remaining(maxLength: number, prompt: number): number {
  if (maxLength > prompt) return maxLength - prompt;
  throw new ConfigError('generate', `the prompt has ${prompt} tokens and maxLength is ${maxLength}`, {
    fix: 'set maxNewTokens, or a larger maxLength',
  });
}

/** What to continue, apart from how. */
function splitOptions({ seed, signal: _signal, ...options }: GenerateOptions) {
  const input: Record<string, unknown> = {};
  const overrides: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options))
    ((generateInputNames as readonly string[]).includes(name) ? input : overrides)[name] = value;
  return { input: input as GenerateInput, overrides: overrides as Partial<GenerationOptions>, seed };
}

/** Options that go with one kind of input only are refused with another. */
function refuseStray(input: GenerateInput): void {
  const { inputIds, attentionMask, messages, addSpecialTokens } = input;
  const refuse = (name: string, place: string) => {
    throw new ConfigError('generate', `${name} goes with ${place}`, { fix: 'leave it out' });
  };
  if (attentionMask && !inputIds) refuse('attentionMask', 'inputIds');
  if (addSpecialTokens !== undefined && (inputIds || messages)) refuse('addSpecialTokens', 'prompt and prompts');
  const stray = chatTemplateOptionNames.find((name) => input[name] !== undefined);
  if (stray && !messages) refuse(stray, 'messages');
}

function promptIds(input: GenerateInput, tokenizer: Tokenizer | undefined): (readonly number[])[] {
  const { inputIds, prompt, prompts, messages } = input;
  const given = [inputIds, prompt, prompts, messages].filter((value) => value !== undefined).length;
  if (given !== 1)
    throw new ConfigError('generate', `got ${given} of inputIds, prompt, prompts and messages`, {
      fix: 'give exactly one',
    });
  refuseStray(input);
  if (inputIds) return withoutPadding(inputIds, input.attentionMask);
  if (!tokenizer) throw new ConfigError('generate', 'the model has no tokenizer', { fix: 'give inputIds' });
  if (messages) return messageIds(tokenizer, input);
  return (prompts ?? [prompt!]).map((text) => encodePrompt(tokenizer, text, input.addSpecialTokens));
}

/** The ids where the mask is 1; all of them without a mask. @throws ConfigError when shapes differ. */
export function withoutPadding(
  inputIds: readonly (readonly number[])[],
  attentionMask?: readonly (readonly number[])[],
): (readonly number[])[] {
  if (!attentionMask) return [...inputIds];
  const fits =
    attentionMask.length === inputIds.length &&
    attentionMask.every(
      (row, i) => row.length === inputIds[i].length && row.every((value) => value === 0 || value === 1),
    );
  if (!fits)
    throw new ConfigError('generate', 'attentionMask must hold a 0 or 1 for each of the inputIds', {
      inputIds: inputIds.map((row) => row.length),
      attentionMask: attentionMask.map((row) => row.length),
    });
  return inputIds.map((row, i) => row.filter((_, j) => attentionMask[i][j] === 1));
}

/**
 * A generation under way: iterate it for tokens as they come, or await it for the result. It starts with the first of
 * these, once. Leaving a `for await` loop early stops it and frees its memory.
 */
export class Generation implements AsyncIterable<GenerationStep>, PromiseLike<GenerationResult> {
  #started = false;
  #result: Promise<GenerationResult> | undefined;

  constructor(
    private readonly requests: readonly GenerationRequest[],
    private readonly run: () => AsyncGenerator<GenerationStep, void>,
  ) {}

  [Symbol.asyncIterator](): AsyncGenerator<GenerationStep, void> {
    if (this.#started)
      throw new ConfigError('generate', 'this generation was already started', { fix: 'call generate() again' });
    this.#started = true;
    return this.run();
  }

  then<A = GenerationResult, B = never>(
    onFulfilled?: ((result: GenerationResult) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#result ??= this.#collect();
    return this.#result.then(onFulfilled, onRejected);
  }

  async #collect(): Promise<GenerationResult> {
    const newTokens: number[][] = this.requests.map(() => []);
    const texts = this.requests.map(() => '');
    const finishReasons: FinishReason[] = [];
    let stats: GenerationStats | undefined;
    for await (const step of this) {
      newTokens[step.sequence].push(step.tokenId);
      texts[step.sequence] += step.text;
      if (step.finishReason) finishReasons[step.sequence] = step.finishReason;
      stats = step.stats ?? stats;
    }
    return {
      sequences: this.requests.map(({ ids }, i) => [...ids, ...newTokens[i]]),
      newTokens,
      texts,
      text: texts[0],
      finishReasons,
      stats: stats!,
    };
  }
}
