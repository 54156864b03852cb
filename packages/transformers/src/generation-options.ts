// Options of one call of generate(), over those of the model's own file, as requests for the engine.
import {
  assertInteger,
  assertSignal,
  ConfigError,
  describeValue,
  GENERATION_DEFAULTS,
  GENERATION_OPTION_NAMES,
  mergeGenerationConfig,
  newTokensFor,
  UnsupportedError,
  type GenerationConfig,
  type GenerationOptionName,
  type GenerationOptions,
  type ResolvedGenerationOptions,
} from '@q/config';
import type { GenerationRequest } from '@q/generate';
import { promptIds, promptInputNames, type PromptInput } from './inputs.js';
import type { Tokenizer } from './tokenizer/tokenizer.js';

export interface GenerateInput extends PromptInput {
  /**
   * Non-negative integer for sampling: one for every prompt, or a list with one for each. Further sequences of a prompt
   * (`numReturnSequences`) take the seeds that follow. Default: random.
   */
  readonly seed?: number | readonly number[];
  readonly signal?: AbortSignal;
}

/**
 * Options of a call. `temperature`, `topK`, `topP` and `minP` imply `doSample: true`, but for `temperature: 0`, which
 * is greedy decoding; beside `doSample: false` they are refused.
 */
export type GenerateOptions = GenerateInput & Partial<GenerationOptions>;

export const generateInputNames = [...promptInputNames, 'seed', 'signal'] as const;

/** What the requests depend on beside the options. */
export interface GenerationContext {
  readonly base: GenerationConfig;
  readonly tokenizer: Tokenizer | undefined;
  readonly vocabSize: number;
  /** Most tokens of a sequence. */
  readonly maxContext: number;
}

/** Options that the engine applies. */
const applied: ReadonlySet<string> = new Set<GenerationOptionName>([
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
]);

/** Values at which an option that is not applied changes nothing; for any option so do null and an empty list. */
const neutral: Readonly<Partial<Record<GenerationOptionName, unknown>>> = {
  ...Object.fromEntries(Object.entries(GENERATION_DEFAULTS).filter(([name]) => !applied.has(name))),
  minNewTokens: 0,
  outputLogits: false,
  outputAttentions: false,
  outputHiddenStates: false,
  renormalizeLogits: false,
  tokenHealing: false,
  targetLookbehind: 10,
  isAssistant: false,
  guidanceScale: 1,
  topH: 1,
  disableCompile: false,
  lowMemory: false,
  useMtp: false,
};

/** What a caller may give beside greedy decoding, as it says the same; a temperature of 0 is its other name. */
const greedyValues: Readonly<Record<string, readonly unknown[]>> = {
  temperature: [0, 1],
  topK: [0],
  topP: [1],
  minP: [0],
};

type Overrides = Partial<GenerationOptions>;

/** Numbers that are none, before they become a JSON null in somebody's message. */
function checkNumbers(overrides: Overrides): void {
  for (const [name, value] of Object.entries(overrides)) {
    if (typeof value === 'bigint' || Number.isNaN(value))
      throw new ConfigError('generate', `${name} is ${describeValue(value)}`, {
        fix: 'give a number, or leave it out',
      });
  }
}

/** The caller's options with what they imply about sampling. */
function withSampling(overrides: Overrides): Overrides {
  const { doSample, temperature } = overrides;
  const given = Object.keys(greedyValues).filter((name) => (overrides[name as keyof Overrides] ?? null) !== null);
  if (given.length === 0 || doSample === true) return overrides;
  if ((doSample ?? null) === null)
    return temperature === 0 ? { ...overrides, doSample: false } : { ...overrides, doSample: true };
  const acting = given.filter((name) => !greedyValues[name].includes(overrides[name as keyof Overrides]));
  if (acting.length === 0) return overrides;
  throw new ConfigError('generate', `${acting.join(', ')} beside doSample: false`, {
    why: 'greedy decoding takes the likeliest token',
    fix: `leave out doSample to sample, or ${acting.join(', ')} to decode greedily`,
  });
}

/** Refuses what would be ignored: what is left of the model's own file changes the tokens of this call too. */
function refuseUnsupported(merged: GenerationConfig, options: ResolvedGenerationOptions): void {
  for (const name of GENERATION_OPTION_NAMES) {
    const value = options[name];
    const isNeutral = value === null || value === neutral[name] || (Array.isArray(value) && value.length === 0);
    if (applied.has(name) || isNeutral) continue;
    const without = `give ${name}: ${JSON.stringify(neutral[name] ?? null)} to do without what generation_config.json says`;
    throw new UnsupportedError('generate', `${name} = ${JSON.stringify(value)} is not supported`, {
      why: 'supported are greedy decoding and sampling with temperature, topK, topP, minP and repetitionPenalty',
      fix: merged.sourceOf(name) === 'file' ? without : 'leave it out',
    });
  }
}

const randomSeed = (): number => Math.floor(Math.random() * 2 ** 48);

/** The seed of each prompt. */
function seedsFor(prompts: number, sequences: number, seed: GenerateInput['seed']): number[] {
  if (Array.isArray(seed) && seed.length !== prompts)
    throw new ConfigError('generate', `seed is a list of ${seed.length}`, {
      prompts,
      fix: 'give one for each prompt, or one number for all',
    });
  const max = Number.MAX_SAFE_INTEGER - sequences + 1;
  return Array.from({ length: prompts }, (_, i) => {
    const [name, value]: [string, unknown] = Array.isArray(seed)
      ? [`seed[${i}]`, seed[i]]
      : ['seed', seed ?? randomSeed()];
    assertInteger('generate', seed === null ? 'seed' : name, seed === null ? seed : value, { min: 0, max });
    return value as number;
  });
}

function stopStringsFor(
  { stopStrings }: ResolvedGenerationOptions,
  overrides: Overrides,
  tokenizer: Tokenizer | undefined,
): string[] {
  const stops = [stopStrings ?? []].flat();
  const isGiven = (overrides.stopStrings ?? null) !== null;
  if (isGiven && stops.includes(''))
    throw new ConfigError('generate', 'stopStrings holds an empty text', {
      why: 'it would stop before the first token',
    });
  if (isGiven && stops.length > 0 && !tokenizer)
    throw new ConfigError('generate', 'stopStrings need a tokenizer', { fix: 'load a model that has tokenizer.json' });
  return tokenizer ? stops.filter((stop) => stop !== '') : [];
}

/** What to continue apart from how. */
function splitOptions({ seed, signal, ...options }: GenerateOptions) {
  const input: Record<string, unknown> = {};
  const given: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options))
    ((promptInputNames as readonly string[]).includes(name) ? input : given)[name] = value;
  return { input: input as PromptInput, given: given as Overrides, seed, signal };
}

/** Prompts and options of one call as requests for the engine. @throws ConfigError, UnsupportedError */
export function requestsFor(options: GenerateOptions, context: GenerationContext): GenerationRequest[] {
  const { input, seed, signal, given } = splitOptions(options);
  const { base, tokenizer, vocabSize, maxContext } = context;
  assertSignal('generate', signal);
  checkNumbers(given);
  const overrides = withSampling(given);
  const config = mergeGenerationConfig(base, overrides);
  const merged = config.resolve();
  refuseUnsupported(config, merged);
  const stopStrings = stopStringsFor(merged, overrides, tokenizer);
  const eosTokenIds = [merged.eosTokenId ?? []].flat();
  const sequences = merged.numReturnSequences;
  const lists = promptIds(input, tokenizer, vocabSize);
  const seeds = seedsFor(lists.length, sequences, seed);
  const { doSample, temperature, topK, topP, minP, repetitionPenalty } = merged;
  const sampling = { doSample, temperature, topK, topP, minP: minP ?? 0, repetitionPenalty };
  return lists.flatMap((ids, row) => {
    const maxNewTokens = newTokensFor(config.lengthLimit(), ids.length, maxContext);
    return Array.from({ length: sequences }, (_, i) => ({
      ids,
      eosTokenIds,
      stopStrings,
      maxNewTokens,
      sampling: { ...sampling, seed: seeds[row] + i },
    }));
  });
}
