// Source followed: the attributes of transformers 5.17's GenerationConfig. All of them are unset (null) until a file or
// a caller sets them.
import { z } from 'zod';
import { idOrIds, ids, integer, listOf, nullable, real, record, text, texts } from './schema.js';

const bool = nullable(z.boolean({ error: 'must be true or false' }));
const count = nullable(integer.min(0, { error: 'must be 0 or more' }));
const positive = nullable(integer.min(1, { error: 'must be greater than 0' }));
const number = nullable(real);
const unit = nullable(real.min(0, { error: 'must be in [0, 1]' }).max(1, { error: 'must be in [0, 1]' }));
const above0 = nullable(real.gt(0, { error: 'must be greater than 0' }));
const share = nullable(real.gt(0, { error: 'must be in (0, 1]' }).max(1, { error: 'must be in (0, 1]' }));
const wordLists = nullable(listOf(ids, 'must be a list of lists of token ids'));
const CACHES = [
  'dynamic',
  'dynamic_full',
  'offloaded',
  'quantized',
  'static',
  'offloaded_static',
  'sliding_window',
  'hybrid',
  'hybrid_chunked',
  'offloaded_hybrid',
  'offloaded_hybrid_chunked',
  'paged',
] as const;

/** The schema of every generation option, by its camelCase name. */
export const generationSchema = z.object({
  // Length
  maxLength: positive,
  maxNewTokens: positive,
  minLength: count,
  minNewTokens: count,
  earlyStopping: nullable(z.union([z.boolean(), z.literal('never')], { error: "must be true, false or 'never'" })),
  maxTime: above0,
  stopStrings: nullable(z.union([text, texts], { error: 'must be a string or a list of strings' })),
  // Strategy
  doSample: bool,
  numBeams: positive,
  useMtp: bool,
  // Cache
  useCache: bool,
  cacheImplementation: nullable(z.enum(CACHES, { error: `must be one of ${CACHES.join(', ')}` })),
  cacheConfig: nullable(record),
  maxCacheLen: positive,
  // Logits
  temperature: nullable(real.min(0, { error: 'must be 0 or more' })),
  topK: count,
  topP: share,
  minP: unit,
  topH: share,
  typicalP: share,
  epsilonCutoff: nullable(real.min(0, { error: 'must be in [0, 1)' }).lt(1, { error: 'must be in [0, 1)' })),
  etaCutoff: nullable(real.min(0, { error: 'must be in [0, 1)' }).lt(1, { error: 'must be in [0, 1)' })),
  repetitionPenalty: above0,
  encoderRepetitionPenalty: above0,
  lengthPenalty: number,
  noRepeatNgramSize: count,
  badWordsIds: wordLists,
  renormalizeLogits: bool,
  forcedBosTokenId: nullable(integer),
  forcedEosTokenId: nullable(idOrIds),
  removeInvalidValues: bool,
  exponentialDecayLengthPenalty: nullable(z.tuple([integer, real], { error: 'must be [start, factor]' })),
  suppressTokens: nullable(ids),
  beginSuppressTokens: nullable(ids),
  sequenceBias: nullable(listOf(z.tuple([ids, real]), 'must be a list of [token ids, bias]')),
  tokenHealing: bool,
  guidanceScale: number,
  watermarkingConfig: nullable(record),
  // Output
  numReturnSequences: positive,
  outputAttentions: bool,
  outputHiddenStates: bool,
  outputScores: bool,
  outputLogits: bool,
  returnDictInGenerate: bool,
  // Special tokens
  padTokenId: nullable(integer),
  bosTokenId: nullable(idOrIds),
  eosTokenId: nullable(idOrIds),
  // Encoder-decoder
  encoderNoRepeatNgramSize: count,
  decoderStartTokenId: nullable(idOrIds),
  // Assisted generation
  isAssistant: bool,
  numAssistantTokens: positive,
  numAssistantTokensSchedule: nullable(text),
  assistantConfidenceThreshold: unit,
  promptLookupNumTokens: positive,
  maxMatchingNgramSize: positive,
  assistantEarlyExit: positive,
  assistantLookbehind: positive,
  targetLookbehind: positive,
  assistantEnsembleWeight: nullable(real.gt(0, { error: 'must be in (0, 1)' }).lt(1, { error: 'must be in (0, 1)' })),
  speculationType: nullable(text),
  // Performance
  compileConfig: nullable(record),
  disableCompile: bool,
  prefillChunkSize: positive,
  continuousBatchingConfig: nullable(record),
  // Moved out of transformers 5's own code, still fields
  lowMemory: bool,
  penaltyAlpha: number,
  dolaLayers: nullable(
    z.union([z.enum(['low', 'high']), z.array(integer)], { error: "must be 'low', 'high' or a list of layers" }),
  ),
  diversityPenalty: number,
  numBeamGroups: positive,
  constraints: nullable(z.array(z.json())),
  forceWordsIds: nullable(listOf(listOf(z.union([integer, ids]), ''), 'must be a list of lists of token ids')),
});

/** Every generation option; null means unset. */
export type GenerationOptions = z.output<typeof generationSchema>;
export type GenerationOptionName = keyof GenerationOptions;

/** Every option name, in the order of the table. */
export const GENERATION_OPTION_NAMES: readonly GenerationOptionName[] = Object.freeze(
  Object.keys(generationSchema.shape) as GenerationOptionName[],
);

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
export const generationKeys = Object.freeze(
  Object.fromEntries(GENERATION_OPTION_NAMES.map((name) => [name, snake(name)])),
) as Readonly<Record<GenerationOptionName, string>>;

/** What unset options mean when generating, as in transformers 5.17. Options not listed stay null. */
export const GENERATION_DEFAULTS = Object.freeze({
  maxLength: 20,
  minLength: 0,
  doSample: false,
  useCache: true,
  earlyStopping: false,
  numBeams: 1,
  temperature: 1,
  topK: 50,
  topP: 1,
  typicalP: 1,
  repetitionPenalty: 1,
  lengthPenalty: 1,
  noRepeatNgramSize: 0,
  encoderNoRepeatNgramSize: 0,
  numReturnSequences: 1,
  outputScores: false,
  returnDictInGenerate: false,
  removeInvalidValues: false,
  epsilonCutoff: 0,
  etaCutoff: 0,
  encoderRepetitionPenalty: 1,
  numAssistantTokens: 20,
  numAssistantTokensSchedule: 'constant',
  assistantConfidenceThreshold: 0.4,
  assistantLookbehind: 10,
  targetLookbehind: 10,
  numBeamGroups: 1,
  diversityPenalty: 0,
}) satisfies Partial<{ [K in GenerationOptionName]: NonNullable<GenerationOptions[K]> }>;

type Defaulted = keyof typeof GENERATION_DEFAULTS;
/** All options with the defaults applied. */
export type ResolvedGenerationOptions = {
  readonly [K in GenerationOptionName]: K extends Defaulted ? NonNullable<GenerationOptions[K]> : GenerationOptions[K];
};

/** What acts only when sampling, with the value that does nothing even then. */
export const SAMPLING_OPTIONS = Object.freeze({
  temperature: 1,
  topP: 1,
  minP: null,
  topH: null,
  typicalP: 1,
  topK: 50,
  epsilonCutoff: 0,
  etaCutoff: 0,
}) satisfies Partial<Record<GenerationOptionName, unknown>>;

/** What acts only with beams, with the value that does nothing even then. */
export const BEAM_OPTIONS = Object.freeze({
  earlyStopping: false,
  lengthPenalty: 1,
  numBeamGroups: 1,
  diversityPenalty: 0,
}) satisfies Partial<Record<GenerationOptionName, unknown>>;

/**
 * Options that change no token: how keys and values are kept, what is returned beside the tokens, how speculation and
 * compilation speed things up. In a model's own file they are passed over.
 */
export const TOKEN_NEUTRAL_OPTIONS: ReadonlySet<GenerationOptionName> = new Set([
  'useCache',
  'useMtp',
  'cacheImplementation',
  'cacheConfig',
  'maxCacheLen',
  'renormalizeLogits',
  'removeInvalidValues',
  'outputAttentions',
  'outputHiddenStates',
  'outputScores',
  'outputLogits',
  'returnDictInGenerate',
  'isAssistant',
  'numAssistantTokens',
  'numAssistantTokensSchedule',
  'assistantConfidenceThreshold',
  'promptLookupNumTokens',
  'maxMatchingNgramSize',
  'assistantEarlyExit',
  'assistantLookbehind',
  'targetLookbehind',
  'assistantEnsembleWeight',
  'speculationType',
  'compileConfig',
  'disableCompile',
  'prefillChunkSize',
  'continuousBatchingConfig',
  'lowMemory',
] as const);
