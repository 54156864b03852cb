// Source followed: transformers 5.17 GenerationConfig.validate, from_dict, update.
import { ConfigError } from './errors.js';
import type { Spec } from './fields.js';
import { changed, configClass, decode } from './fields.js';
import type { GenerationOptionName, GenerationOptions, ResolvedGenerationOptions } from './generation-fields.js';
import {
  GENERATE_ARGUMENTS,
  GENERATION_DEFAULTS,
  GENERATION_OPTION_NAMES,
  generationKeys,
  generationSchema,
} from './generation-fields.js';
import type { ConfigWarning, ReadOptions } from './json.js';
import { frozenCopy } from './json.js';

const op = 'GenerationConfig';

const fail = (field: string, value: unknown, why: string, fix?: string): never => {
  throw new ConfigError(op, `${field} is ${JSON.stringify(value)}`, { why, fix });
};

/** Combinations that cannot work. */
function checkCombinations(o: GenerationOptions): void {
  const beams = o.numBeams ?? 1;
  const sequences = o.numReturnSequences ?? 1;
  if (o.doSample === true && o.temperature === 0)
    fail('temperature', 0, 'must be greater than 0 when sampling', 'set doSample to false for greedy decoding');
  if (sequences > 1 && beams === 1 && o.doSample !== true) {
    fail(
      'numReturnSequences',
      sequences,
      'greedy decoding gives one sequence',
      'set doSample to true or numBeams above 1',
    );
  }
  if (beams > 1 && sequences > beams) fail('numReturnSequences', sequences, `must be at most numBeams (${beams})`);
  for (const field of ['forcedBosTokenId', 'forcedEosTokenId'] as const) {
    const forced = [o[field] ?? []].flat();
    if (forced.length > 0 && forced.every((id) => o.suppressTokens?.includes(id))) {
      fail(
        field,
        o[field],
        'every forced token is also in suppressTokens, so no token would be left',
        'use minNewTokens to delay the end token',
      );
    }
  }
}

const SAMPLING = {
  temperature: 1,
  topP: 1,
  minP: null,
  topH: null,
  typicalP: 1,
  topK: 50,
  epsilonCutoff: 0,
  etaCutoff: 0,
} as const;
const BEAMS = { earlyStopping: false, lengthPenalty: 1 } as const;
const OUTPUTS = ['outputAttentions', 'outputHiddenStates', 'outputScores', 'outputLogits'] as const;

/**
 * Options that have no effect. `given`: the names the caller set; a value inherited from a model's file is silent when
 * the caller set the mode.
 */
function findIneffective(o: GenerationOptions, given?: ReadonlySet<string>): ConfigWarning[] {
  const found: ConfigWarning[] = [];
  const add = (field: GenerationOptionName, why: string): void => {
    found.push({ code: 'ignored', field, message: `[${op}] ${field} is ${JSON.stringify(o[field])}; ${why}` });
  };
  const relevant = (mode: string, field: string): boolean => !given?.has(mode) || given.has(field);
  if (o.doSample !== true) {
    for (const [field, neutral] of Object.entries(SAMPLING) as [keyof typeof SAMPLING, unknown][]) {
      if (o[field] !== null && o[field] !== neutral && relevant('doSample', field))
        add(field, 'it acts only when doSample is true');
    }
  }
  if ((o.numBeams ?? 1) === 1) {
    for (const [field, neutral] of Object.entries(BEAMS) as [keyof typeof BEAMS, unknown][]) {
      if (o[field] !== null && o[field] !== neutral && relevant('numBeams', field))
        add(field, 'it acts only when numBeams is above 1');
    }
  }
  if (o.useCache === false) {
    for (const field of ['cacheImplementation', 'cacheConfig'] as const)
      if (o[field] !== null) add(field, 'it acts only when useCache is true');
  }
  if (o.maxCacheLen !== null && !o.cacheImplementation?.includes('static'))
    add('maxCacheLen', 'it acts only with a static cache');
  if (o.returnDictInGenerate !== true) {
    for (const field of OUTPUTS) if (o[field] === true) add(field, 'it acts only when returnDictInGenerate is true');
  }
  if (o.padTokenId !== null && o.padTokenId < 0)
    add('padTokenId', 'it must not be negative when a batch needs padding');
  return found;
}

const SPEC: Spec<GenerationOptions> = {
  op,
  schema: generationSchema,
  keys: generationKeys,
  kept: ['transformers_version', '_from_model_config', '_commit_hash', '_original_object_hash'],
  omitNull: 'all',
  check: (values, warn) => {
    checkCombinations(values);
    for (const warning of findIneffective(values)) warn(warning);
    return values;
  },
};

/**
 * How to generate: every option of Python's class in camelCase, null where unset. Frozen.
 * `new GenerationConfig({ maxNewTokens: 64, doSample: true, topP: 0.9 })`.
 * @throws ConfigError for an unknown option (with the nearest valid name), a value that breaks a rule, or a combination
 *   that cannot work
 */
export class GenerationConfig extends configClass(SPEC) {
  /**
   * Reads a `generation_config.json`, as an object or as text. Unknown keys are kept and reported. @throws ConfigError
   */
  static fromJSON(json: unknown, options?: ReadOptions): GenerationConfig {
    const decoded = decode(SPEC, json, options);
    const argument = GENERATE_ARGUMENTS.find((key) => Object.hasOwn(decoded.raw, key));
    if (argument !== undefined)
      throw new ConfigError(op, `${argument} cannot be part of a generation configuration`, {
        fix: 'pass it to generate()',
      });
    return new GenerationConfig(decoded);
  }

  /** A copy with some options changed: undefined leaves a value, null unsets it. @throws ConfigError */
  with(changes: Partial<GenerationOptions>): GenerationConfig {
    return new GenerationConfig(changed(SPEC, this, changes));
  }

  /** All options with `GENERATION_DEFAULTS` where they are unset. Frozen. */
  resolve(): ResolvedGenerationOptions {
    const out: Record<string, unknown> = { ...GENERATION_DEFAULTS };
    for (const name of GENERATION_OPTION_NAMES) if (this[name] !== null) out[name] = this[name];
    for (const name of GENERATION_OPTION_NAMES) out[name] ??= null;
    return frozenCopy(out) as ResolvedGenerationOptions;
  }

  /**
   * The options that have no effect, as warnings. `given` names the options that the caller set, so that values from a
   * model's own file stay silent; without it all count.
   * @throws ConfigError with `strict`, when there is any
   */
  validate({ strict = false, given }: { strict?: boolean; given?: Iterable<string> } = {}): readonly ConfigWarning[] {
    const found = findIneffective(this, given === undefined ? undefined : new Set(given));
    if (strict && found.length > 0)
      throw new ConfigError(op, 'options without effect', {
        options: found.map((w) => w.field),
        why: found.map((w) => w.message).join('; '),
      });
    return found;
  }
}

/**
 * The configuration of one call: `base` (a model's own) with the caller's options on top. undefined leaves a value,
 * null unsets it. A new `maxLength` without `maxNewTokens` unsets the base's `maxNewTokens`, which would win otherwise.
 * @throws ConfigError for unknown names (`did you mean maxNewTokens?`) and values that break a rule
 */
export function mergeGenerationConfig(
  base: GenerationConfig | Partial<GenerationOptions>,
  overrides: Partial<GenerationOptions> = {},
  { onWarning }: ReadOptions = {},
): GenerationConfig {
  const start = base instanceof GenerationConfig ? base : new GenerationConfig(base);
  const given = Object.entries(overrides)
    .filter(([, value]) => value !== undefined)
    .map(([name]) => name);
  const lengthOnly = given.includes('maxLength') && !given.includes('maxNewTokens');
  const merged = start.with(lengthOnly ? { ...overrides, maxNewTokens: null } : overrides);
  for (const warning of merged.validate({ given })) onWarning?.(warning);
  return merged;
}
