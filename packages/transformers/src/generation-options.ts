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
import { assertTokenIds, type GenerationRequest } from '@q/generate';
import { assertIdLists, promptIds, promptInputNames, type PromptInput } from './inputs.js';
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

/** Options of a call on an encoder-decoder, whose prompts are what the encoder reads. */
export type Seq2SeqGenerateOptions = GenerateOptions & {
  /**
   * What the decoder begins with, a list for each prompt. As in Python the start token is put in front of all lists
   * unless one of them begins with it. Default: the start token alone.
   */
  readonly decoderInputIds?: readonly (readonly number[])[];
};

export const decoderInputNames = ['decoderInputIds'] as const;

/** What the requests depend on beside the options. */
export interface GenerationContext {
  readonly base: GenerationConfig;
  readonly tokenizer: Tokenizer | undefined;
  readonly vocabSize: number;
  /** Most tokens of a sequence. */
  readonly maxContext: number;
  /** Whether prompts go to an encoder. Default false. */
  readonly encodes?: boolean;
  /** What a decoder starts with where the generation config does not say. */
  readonly startTokenId?: number | null;
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
  'forcedBosTokenId',
  'forcedEosTokenId',
  'decoderStartTokenId',
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

/** An option of encoder-decoders; in a file it says nothing to other models. */
function refuseDecoderStart({ decoderStartTokenId }: Overrides, { encodes }: GenerationContext): void {
  if (encodes || (decoderStartTokenId ?? null) === null) return;
  throw new ConfigError('generate', `decoderStartTokenId is ${describeValue(decoderStartTokenId)}`, {
    why: 'this model has no encoder',
    fix: 'leave it out',
  });
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

/** The last token of a text that its length ends. @throws UnsupportedError for a choice of several */
function forcedEos({ forcedEosTokenId }: ResolvedGenerationOptions): number | undefined {
  const ids = [forcedEosTokenId ?? []].flat();
  if (ids.length < 2) return ids[0];
  throw new UnsupportedError('generate', `forcedEosTokenId is a list of ${ids.length}`, {
    why: 'one token is forced',
    fix: 'give one of them',
  });
}

/** What the decoder begins with, for each prompt. @throws ConfigError */
function decoderIdsFor(
  prompts: number,
  given: Seq2SeqGenerateOptions['decoderInputIds'],
  { decoderStartTokenId, bosTokenId }: ResolvedGenerationOptions,
  { startTokenId, vocabSize }: GenerationContext,
): readonly (readonly number[])[] {
  const stated = decoderStartTokenId ?? startTokenId ?? bosTokenId;
  const starts = Array.isArray(stated) ? stated : Array.from({ length: prompts }, () => stated);
  if (starts.length !== prompts)
    throw new ConfigError('generate', `decoderStartTokenId is a list of ${starts.length}`, {
      prompts,
      fix: 'give one for each prompt, or one number for all',
    });
  if (given === undefined) {
    if (starts.includes(null))
      throw new ConfigError('generate', 'the model does not say with which token its decoder starts', {
        fix: 'give decoderStartTokenId or decoderInputIds',
      });
    assertTokenIds('generate', 'decoderStartTokenId', starts, vocabSize);
    return starts.map((start) => [start as number]);
  }
  assertIdLists('generate', given, vocabSize, 'decoderInputIds');
  if (given.length !== prompts)
    throw new ConfigError('generate', `decoderInputIds has ${given.length} lists`, {
      prompts,
      fix: 'give one for each prompt',
    });
  const prepends = given.every(([first], i) => starts[i] !== null && first !== starts[i]);
  return prepends ? given.map((ids, i) => [starts[i] as number, ...ids]) : given.map((ids) => [...ids]);
}

/** What to continue apart from how. */
function splitOptions({ seed, signal, decoderInputIds, ...options }: Seq2SeqGenerateOptions) {
  const input: Record<string, unknown> = {};
  const given: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options))
    ((promptInputNames as readonly string[]).includes(name) ? input : given)[name] = value;
  return { input: input as PromptInput, given: given as Overrides, seed, signal, decoderInputIds };
}

/** Prompts and options of one call as requests for the engine. @throws ConfigError, UnsupportedError */
export function requestsFor(options: Seq2SeqGenerateOptions, context: GenerationContext): GenerationRequest[] {
  const { input, seed, signal, given, decoderInputIds } = splitOptions(options);
  const { base, tokenizer, vocabSize, maxContext } = context;
  assertSignal('generate', signal);
  checkNumbers(given);
  const overrides = withSampling(given);
  const config = mergeGenerationConfig(base, overrides);
  const merged = config.resolve();
  refuseUnsupported(config, merged);
  refuseDecoderStart(overrides, context);
  const stopStrings = stopStringsFor(merged, overrides, tokenizer);
  const eosTokenIds = [merged.eosTokenId ?? []].flat();
  const sequences = merged.numReturnSequences;
  const prompts = promptIds(input, tokenizer, vocabSize);
  const lists = context.encodes ? decoderIdsFor(prompts.length, decoderInputIds, merged, context) : prompts;
  const seeds = seedsFor(lists.length, sequences, seed);
  const { doSample, temperature, topK, topP, minP, repetitionPenalty } = merged;
  const sampling = { doSample, temperature, topK, topP, minP: minP ?? 0, repetitionPenalty };
  return lists.flatMap((ids, row) => {
    const maxNewTokens = newTokensFor(config.lengthLimit(), ids.length, maxContext);
    const forced = ids.length === 1 ? merged.forcedBosTokenId : null;
    const last = forcedEos(merged);
    return Array.from({ length: sequences }, (_, i) => ({
      ids,
      ...(context.encodes && { encoderIds: prompts[row] }),
      ...(forced !== null && { forcedFirstTokenId: forced }),
      ...(last !== undefined && { forcedLastTokenId: last }),
      eosTokenIds,
      stopStrings,
      maxNewTokens,
      sampling: { ...sampling, seed: seeds[row] + i },
    }));
  });
}
