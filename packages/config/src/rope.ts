// Rotary position settings in both forms: `rope_parameters` (transformers 5) and `rope_theta` + `rope_scaling`
// (transformers 4 and most hub files). Source followed: transformers' modeling_rope_utils (keys per type, defaults).
import { z } from 'zod';
import { ConfigError, UnsupportedError } from './errors.js';
import { show, validate } from './fields.js';
import type { ConfigWarning, JsonObject } from './json.js';
import { isPlainObject, jsonEqual } from './json.js';
import { changesTheMaths, ignoreAdvice, passedOver } from './keys.js';
import { MAX_HEAD_DIM, MAX_POSITIONS, MAX_ROPE_FACTOR, ROPE_NUMBER, ROPE_THETA } from './limits.js';
import { closest } from './names.js';
import { listOf, nullable, orElse, real, realIn, sizeUpTo } from './schema.js';

interface RopeBase {
  /** Base of the frequencies. */
  theta: number;
  /** Share of each head's dimensions that is rotated, in (0, 1]. */
  partialRotaryFactor: number;
}

/** Rotary settings, one shape for all files. Lengths are in tokens; `null` factors follow the formula of the type. */
export type RopeConfig = Readonly<
  RopeBase &
    (
      | { type: 'default' }
      | { type: 'linear'; factor: number; originalMaxPositionEmbeddings: number }
      | { type: 'dynamic'; factor: number; originalMaxPositionEmbeddings: number }
      | {
          type: 'yarn';
          factor: number;
          originalMaxPositionEmbeddings: number;
          attentionFactor: number | null;
          betaFast: number;
          betaSlow: number;
          mscale: number | null;
          mscaleAllDim: number | null;
          truncate: boolean;
        }
      | {
          type: 'longrope';
          factor: number;
          originalMaxPositionEmbeddings: number;
          shortFactor: readonly number[];
          longFactor: readonly number[];
          attentionFactor: number | null;
        }
      | {
          type: 'llama3';
          factor: number;
          lowFreqFactor: number;
          highFreqFactor: number;
          originalMaxPositionEmbeddings: number;
        }
    )
>;

export type RopeType = RopeConfig['type'];
type RopeOf<T extends RopeType> = Omit<Extract<RopeConfig, { type: T }>, keyof RopeBase>;
export const ROPE_TYPES: readonly RopeType[] = Object.freeze([
  'default',
  'linear',
  'dynamic',
  'yarn',
  'longrope',
  'llama3',
] as const);

const factor = real
  .min(1, { error: 'must be 1 or more' })
  .max(MAX_ROPE_FACTOR, { error: `must be at most ${MAX_ROPE_FACTOR}` });
const number = realIn(ROPE_NUMBER);
const factors = listOf(number, 'must be a list of numbers', MAX_HEAD_DIM);
const length = sizeUpTo(MAX_POSITIONS);
const original = nullable(length);
const stretched = z.object({ factor, original_max_position_embeddings: original });
const shapes = {
  default: z.object({}),
  linear: stretched,
  dynamic: stretched,
  yarn: z.object({
    factor,
    original_max_position_embeddings: original,
    attention_factor: nullable(number),
    beta_fast: orElse(number, 32),
    beta_slow: orElse(number, 1),
    mscale: nullable(number),
    mscale_all_dim: nullable(number),
    truncate: z.boolean({ error: 'must be true or false' }).nullish(),
  }),
  longrope: z.object({
    factor: nullable(factor),
    original_max_position_embeddings: original,
    short_factor: factors,
    long_factor: factors,
    attention_factor: nullable(number),
  }),
  llama3: z.object({
    factor,
    low_freq_factor: number,
    high_freq_factor: number,
    original_max_position_embeddings: length,
  }),
} as const;

export interface RopeContext {
  op: string;
  /** Dimensions of a head. */
  headDim: number;
  maxPositionEmbeddings: number;
  /** Takes a line for each key that is passed over. */
  warn(warning: ConfigWarning): void;
}

const GENERAL = ['type', 'rope_type', 'rope_theta', 'partial_rotary_factor'];

// Keys of any type: beside another one they mean nothing. The last row is of YaRN's first code, and of text models cut
// out of larger ones.
const OF_SOME_TYPE = new Set([
  ...Object.values(shapes).flatMap(({ shape }) => Object.keys(shape)),
  ...['finetuned', 'extrapolation_factor', 'attn_factor', 'mrope_section'],
]);

// Keys of other programs' scalings, with the value that changes nothing.
const FOREIGN: Readonly<Record<string, unknown>> = { extrapolation_factor: 1, attn_factor: 1, alpha: 1, beta: 1 };

function typeOf(op: string, settings: JsonObject): RopeType {
  const { rope_type: named, type: older } = settings;
  const given = [named, older].filter((word) => word !== undefined && word !== null);
  if (given.length === 2 && named !== older) {
    throw new ConfigError(op, `rope_type is ${show(named)} and type is ${show(older)}`, {
      why: 'both name the same setting',
    });
  }
  const word = given[0] ?? 'default';
  const type = word === 'su' ? 'longrope' : word;
  const found = ROPE_TYPES.find((candidate) => candidate === type);
  if (found === undefined)
    throw new UnsupportedError(op, `unknown rope type ${show(word)}`, {
      fix: `supported: ${ROPE_TYPES.join(', ')}`,
    });
  return found;
}

/** Passes over what the type does not use; refuses what changes the positions and is not understood. */
function checkRopeKeys(type: RopeType, settings: JsonObject, place: string, { op, warn }: RopeContext): void {
  const used = [...GENERAL, ...Object.keys(shapes[type].shape)];
  for (const [key, value] of Object.entries(settings)) {
    if (used.includes(key) || value === null) continue;
    const path = `${place}.${key}`;
    const foreign = Object.hasOwn(FOREIGN, key) && FOREIGN[key] !== value;
    const meant = OF_SOME_TYPE.has(key) ? undefined : closest(key, used, 2);
    if (foreign || meant !== undefined || (!OF_SOME_TYPE.has(key) && changesTheMaths(key, value, settings)))
      throw new ConfigError(op, `unknown key ${key} (${show(value)}) in the rope settings of type ${type}`, {
        why: 'it may change the positions',
        fix: `${meant === undefined ? '' : `did you mean ${meant}? `}${ignoreAdvice(path)}`,
      });
    warn(passedOver(op, path));
  }
}

type Given = Readonly<Record<string, unknown>>;
type Reader<T extends RopeType> = (given: Given, context: RopeContext, rotated: number) => RopeOf<T>;

const check = <S extends z.ZodType>(schema: S, given: Given, op: string): z.output<S> =>
  validate(op, schema, given, (field) => `rope ${field}`) as z.output<S>;

const readYarn: Reader<'yarn'> = (given, { op, maxPositionEmbeddings: max }) => {
  const s = check(shapes.yarn, given, op);
  if (s.beta_fast < s.beta_slow)
    throw new ConfigError(op, `rope beta_fast is ${s.beta_fast}`, {
      why: `must be at least beta_slow (${s.beta_slow})`,
    });
  if (given.rope_theta === 1)
    throw new ConfigError(op, 'rope_theta is 1', { why: 'yarn needs frequencies that differ: above 1' });
  return {
    type: 'yarn',
    factor: s.factor,
    originalMaxPositionEmbeddings: s.original_max_position_embeddings ?? max,
    attentionFactor: s.attention_factor,
    betaFast: s.beta_fast,
    betaSlow: s.beta_slow,
    mscale: s.mscale,
    mscaleAllDim: s.mscale_all_dim,
    truncate: s.truncate ?? true,
  };
};

const readLongrope: Reader<'longrope'> = (given, { op, maxPositionEmbeddings: max }, rotated) => {
  const s = check(shapes.longrope, given, op);
  for (const key of ['short_factor', 'long_factor'] as const) {
    if (s[key].length !== rotated / 2)
      throw new ConfigError(op, `rope ${key} has ${s[key].length} entries`, {
        why: `must have ${rotated / 2}, one per rotated pair of a head`,
      });
  }
  const originalMax = s.original_max_position_embeddings ?? max;
  if (originalMax < 2)
    throw new ConfigError(op, `rope original_max_position_embeddings is ${originalMax}`, { why: 'must be at least 2' });
  return {
    type: 'longrope',
    factor: s.factor ?? Math.max(1, max / originalMax),
    originalMaxPositionEmbeddings: originalMax,
    shortFactor: s.short_factor,
    longFactor: s.long_factor,
    attentionFactor: s.attention_factor,
  };
};

const readLlama3: Reader<'llama3'> = (given, { op }) => {
  const s = check(shapes.llama3, given, op);
  if (s.low_freq_factor >= s.high_freq_factor)
    throw new ConfigError(op, `rope low_freq_factor is ${s.low_freq_factor}`, {
      why: `must be below high_freq_factor (${s.high_freq_factor})`,
    });
  return {
    type: 'llama3',
    factor: s.factor,
    lowFreqFactor: s.low_freq_factor,
    highFreqFactor: s.high_freq_factor,
    originalMaxPositionEmbeddings: s.original_max_position_embeddings,
  };
};

const readStretched =
  <T extends 'linear' | 'dynamic'>(type: T): Reader<T> =>
  (given, { op, maxPositionEmbeddings: max }, rotated) => {
    const s = check(stretched, given, op);
    if (type === 'dynamic' && rotated < 4)
      throw new ConfigError(op, `${rotated} dimensions of a head are rotated`, {
        why: 'dynamic scaling needs 4 or more',
      });
    const originalMaxPositionEmbeddings = s.original_max_position_embeddings ?? max;
    return { type, factor: s.factor, originalMaxPositionEmbeddings } as RopeOf<T>;
  };

const readers: { readonly [T in RopeType]: Reader<T> } = {
  default: () => ({ type: 'default' }),
  linear: readStretched('linear'),
  dynamic: readStretched('dynamic'),
  yarn: readYarn,
  longrope: readLongrope,
  llama3: readLlama3,
};

const baseShape = z.object({
  rope_theta: orElse(realIn(ROPE_THETA), 10000),
  partial_rotary_factor: orElse(real.gt(0, { error: 'must be in (0, 1]' }).max(1, { error: 'must be in (0, 1]' }), 1),
});

function read(settings: JsonObject, place: string, top: JsonObject, context: RopeContext): RopeConfig {
  const { op, headDim } = context;
  const type = typeOf(op, settings);
  checkRopeKeys(type, settings, place, context);
  const inherit = (key: string): unknown => settings[key] ?? top[key] ?? undefined;
  const base = validate(op, baseShape, {
    rope_theta: inherit('rope_theta'),
    partial_rotary_factor: inherit('partial_rotary_factor'),
  });
  const rotated = Math.floor(headDim * base.partial_rotary_factor);
  if (rotated < 2 || rotated % 2 !== 0)
    throw new ConfigError(op, `partial_rotary_factor is ${base.partial_rotary_factor}`, {
      why: `it rotates ${rotated} of ${headDim} dimensions of a head; must be an even number, 2 or more`,
    });
  const given = {
    ...settings,
    rope_theta: base.rope_theta,
    original_max_position_embeddings: inherit('original_max_position_embeddings'),
  };
  return {
    ...readers[type](given, context, rotated),
    theta: base.rope_theta,
    partialRotaryFactor: base.partial_rotary_factor,
  } as RopeConfig;
}

/** The keys of a `config.json` that `readRope` reads. */
export const ROPE_KEYS = Object.freeze([
  'rope_parameters',
  'rope_scaling',
  'rope_theta',
  'partial_rotary_factor',
  'original_max_position_embeddings',
]);

/**
 * Reads the rotary settings of a `config.json` in either form. Where a file holds both, they must say the same.
 * @throws ConfigError for bad or contradicting values, UnsupportedError for other types
 */
export function readRope(raw: JsonObject, context: RopeContext): RopeConfig {
  const { rope_parameters: current, rope_scaling: legacy } = raw;
  for (const [key, value] of Object.entries({ rope_parameters: current, rope_scaling: legacy })) {
    if (value !== undefined && value !== null && !isPlainObject(value))
      throw new ConfigError(context.op, `${key} must be an object`, { got: show(value) });
  }
  if (isPlainObject(current) && Object.values(current).some(isPlainObject)) {
    throw new UnsupportedError(context.op, 'rope_parameters differ between kinds of layers', {
      fix: 'use a model with one set of rope settings',
    });
  }
  const fromCurrent = isPlainObject(current) ? read(current as JsonObject, 'rope_parameters', raw, context) : undefined;
  if (fromCurrent && typeof raw.rope_theta === 'number' && raw.rope_theta !== fromCurrent.theta) {
    throw new ConfigError(context.op, `rope_theta is ${show(raw.rope_theta)}`, {
      why: `rope_parameters says ${fromCurrent.theta}`,
      fix: 'remove one of them',
    });
  }
  const older = legacy ?? (fromCurrent ? undefined : {});
  const fromLegacy =
    older === undefined || older === null ? undefined : read(older as JsonObject, 'rope_scaling', raw, context);
  if (fromCurrent && fromLegacy && !jsonEqual(fromCurrent, fromLegacy)) {
    throw new ConfigError(context.op, 'rope_parameters and rope_scaling/rope_theta say different things', {
      rope_parameters: fromCurrent,
      legacy: fromLegacy,
      fix: 'remove one of them',
    });
  }
  return fromCurrent ?? fromLegacy ?? read({}, 'rope_scaling', raw, context);
}
