// Source followed: transformers 5.17 GenerationConfig.validate, from_dict, update.
import { ConfigError } from './errors.js';
import type { Decoded, OptionSource, Spec } from './fields.js';
import { changed, configClass, decode, isFromFile, show, sourceOf } from './fields.js';
import type { GenerationOptionName, GenerationOptions, ResolvedGenerationOptions } from './generation-fields.js';
import {
  BEAM_OPTIONS,
  GENERATION_DEFAULTS,
  GENERATION_OPTION_NAMES,
  generationKeys,
  generationSchema,
  SAMPLING_OPTIONS,
  TOKEN_NEUTRAL_OPTIONS,
} from './generation-fields.js';
import type { LengthLimit } from './generation-length.js';
import type { ConfigWarning, ReadOptions } from './json.js';
import { frozenCopy } from './json.js';
import { assertKnownKeys } from './names.js';

const op = 'GenerationConfig';

const fail = (field: string, value: unknown, why: string, fix?: string): never => {
  throw new ConfigError(op, `${field} is ${show(value)}`, { why, fix });
};

/** Combinations that cannot work. */
function checkCombinations(o: GenerationOptions): void {
  const beams = o.numBeams ?? 1;
  const sequences = o.numReturnSequences ?? 1;
  if (o.doSample === true && o.temperature === 0)
    fail('temperature', 0, 'must be greater than 0 when sampling', 'set doSample to false for greedy decoding');
  if (sequences > 1 && beams === 1 && o.doSample !== true) {
    fail('numReturnSequences', sequences, 'greedy decoding gives one sequence', 'set doSample to true');
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

const OUTPUTS = ['outputAttentions', 'outputHiddenStates', 'outputScores', 'outputLogits'] as const;

/** An option that has an effect only in a mode. */
interface Conditional {
  readonly fields: readonly GenerationOptionName[];
  /** Values that do nothing in any mode. */
  readonly neutral?: Readonly<Partial<Record<GenerationOptionName, unknown>>>;
  readonly mode: GenerationOptionName;
  readonly acts: (o: GenerationOptions) => boolean;
  readonly why: string;
}

const fieldsOf = (table: object): GenerationOptionName[] => Object.keys(table) as GenerationOptionName[];

const CONDITIONAL: readonly Conditional[] = [
  {
    fields: fieldsOf(SAMPLING_OPTIONS),
    neutral: SAMPLING_OPTIONS,
    mode: 'doSample',
    acts: (o) => o.doSample === true,
    why: 'it acts only when doSample is true',
  },
  {
    fields: fieldsOf(BEAM_OPTIONS),
    neutral: BEAM_OPTIONS,
    mode: 'numBeams',
    acts: (o) => (o.numBeams ?? 1) > 1,
    why: 'it acts only when numBeams is above 1',
  },
  {
    fields: ['cacheImplementation', 'cacheConfig'],
    mode: 'useCache',
    acts: (o) => o.useCache !== false,
    why: 'it acts only when useCache is true',
  },
  {
    fields: ['maxCacheLen'],
    mode: 'cacheImplementation',
    acts: (o) => o.cacheImplementation?.includes('static') === true,
    why: 'it acts only with a static cache',
  },
  {
    fields: OUTPUTS,
    neutral: { outputAttentions: false, outputHiddenStates: false, outputScores: false, outputLogits: false },
    mode: 'returnDictInGenerate',
    acts: (o) => o.returnDictInGenerate === true,
    why: 'it acts only when returnDictInGenerate is true',
  },
];

/**
 * Options that have no effect. `given`: the names the caller set; a value inherited from a model's file is silent when
 * the caller set the mode.
 */
function findIneffective(o: GenerationOptions, given?: ReadonlySet<string>): ConfigWarning[] {
  const found: ConfigWarning[] = [];
  const add = (field: GenerationOptionName, why: string): void => {
    found.push({ code: 'ignored', field, message: `[${op}] ${field} is ${show(o[field])}; ${why}` });
  };
  for (const { fields, neutral = {}, mode, acts, why } of CONDITIONAL) {
    if (acts(o)) continue;
    for (const field of fields) {
      const relevant = !given?.has(mode) || given.has(field);
      if (o[field] !== null && o[field] !== neutral[field] && relevant) add(field, why);
    }
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
    for (const warning of findIneffective(values)) warn(warning);
    return values;
  },
};

/** Values of a file that break a rule, by option: refused when they are used. */
const problems = new WeakMap<object, ReadonlyMap<GenerationOptionName, string>>();

/** Takes the values that break a rule out of what was read. */
function setAside(decoded: Decoded): { rest: Decoded; found: Map<GenerationOptionName, string> } {
  const found = new Map<GenerationOptionName, string>();
  for (const [field, value] of Object.entries(decoded.options)) {
    const name = field as GenerationOptionName;
    const result = generationSchema.shape[name].safeParse(value);
    if (!result.success)
      found.set(name, `${generationKeys[name]} is ${show(value)}; ${result.error.issues[0].message}`);
  }
  const warnings = [...found].map(([field, what]): ConfigWarning => {
    return { code: 'invalid', field: generationKeys[field], message: `[${op}] ${what}; it is refused when it is used` };
  });
  return { rest: decoded.without(new Set(found.keys()), warnings), found };
}

const isEmpty = (value: unknown): boolean => value === '' || (Array.isArray(value) && value.length === 0);

/**
 * How to generate: every option of Python's class in camelCase, null where unset. Frozen.
 * `new GenerationConfig({ maxNewTokens: 64, doSample: true, topP: 0.9 })`.
 * @throws ConfigError for an unknown option (with the nearest valid name), a value that breaks a rule, or a combination
 *   that cannot work
 */
export class GenerationConfig extends configClass(SPEC) {
  constructor(options?: Partial<GenerationOptions> | Decoded) {
    super(options);
    // What a file says is looked at when it is used: a caller may override it, and loading must not fail.
    if (!isFromFile(this)) checkCombinations(this);
  }

  /**
   * Reads a `generation_config.json`, as an object or as text. Unknown keys are kept and reported; so are values that
   * break a rule: they count as unset, and `resolve` refuses them unless the caller has given another.
   * @throws ConfigError for what is no JSON object
   */
  static fromJSON(json: unknown, options?: ReadOptions): GenerationConfig {
    const { rest, found } = setAside(decode(SPEC, json, options));
    const config = new GenerationConfig(rest);
    problems.set(config, found);
    return config;
  }

  /** A copy with some options changed: undefined leaves a value, null unsets it. @throws ConfigError */
  with(changes: Partial<GenerationOptions>): GenerationConfig {
    const copy = new GenerationConfig(changed(SPEC, this, changes));
    const left = [...(problems.get(this) ?? [])].filter(([field]) => changes[field] === undefined);
    problems.set(copy, new Map(left));
    return copy;
  }

  /** Who set an option: the caller, the file that this was read from, or nobody. */
  sourceOf(option: GenerationOptionName): OptionSource {
    return sourceOf(this, option);
  }

  /** How long a call may become, and who said so: the caller, else the file; `maxNewTokens` before `maxLength`. */
  lengthLimit(): LengthLimit {
    for (const source of ['caller', 'file'] as const) {
      const set = (option: 'maxNewTokens' | 'maxLength') =>
        this[option] !== null && this.sourceOf(option) === source ? this[option] : null;
      const maxNewTokens = set('maxNewTokens');
      const maxLength = maxNewTokens === null ? set('maxLength') : null;
      if (maxNewTokens !== null || maxLength !== null) return { maxNewTokens, maxLength, source };
    }
    return { maxNewTokens: null, maxLength: null, source: 'default' };
  }

  /**
   * All options with `GENERATION_DEFAULTS` where they are unset, for use. Frozen. Of a file's options those are passed
   * over that change no token, are empty lists, or act only in a mode that is off (a temperature without sampling).
   * @throws ConfigError for values of a file that break a rule or cannot work together, and that the caller has not
   *   overridden
   */
  resolve(): ResolvedGenerationOptions {
    this.#refuseProblems();
    const passedOver = this.#passedOver();
    const out: Record<string, unknown> = { ...GENERATION_DEFAULTS };
    for (const name of GENERATION_OPTION_NAMES) {
      const own = this[name];
      const skipped = this.sourceOf(name) === 'file' && (passedOver.has(name) || isEmpty(own));
      if (own !== null && !skipped) out[name] = own;
      out[name] ??= null;
    }
    checkCombinations(out as unknown as GenerationOptions);
    return frozenCopy(out) as ResolvedGenerationOptions;
  }

  /** Options that, coming from a file, have nothing to say here. */
  #passedOver(): ReadonlySet<GenerationOptionName> {
    const idle = CONDITIONAL.filter(({ acts }) => !acts(this)).flatMap(({ fields }) => fields);
    const one = this.doSample !== true && (this.numBeams ?? 1) === 1;
    return new Set([...TOKEN_NEUTRAL_OPTIONS, ...idle, ...(one ? (['numReturnSequences'] as const) : [])]);
  }

  #refuseProblems(): void {
    const passedOver = this.#passedOver();
    for (const [field, what] of problems.get(this) ?? []) {
      if (passedOver.has(field)) continue;
      throw new ConfigError(op, what, { why: 'generation_config.json says so', fix: `give ${field} in the call` });
    }
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
  assertKnownKeys(op, overrides, GENERATION_OPTION_NAMES);
  const given = Object.entries(overrides)
    .filter(([, value]) => value !== undefined)
    .map(([name]) => name);
  const lengthOnly = given.includes('maxLength') && !given.includes('maxNewTokens');
  const merged = start.with(lengthOnly ? { ...overrides, maxNewTokens: null } : overrides);
  for (const warning of merged.validate({ given })) onWarning?.(warning);
  return merged;
}
