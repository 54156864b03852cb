// Rotary position settings in both forms: `rope_parameters` (transformers 5) and `rope_theta` + `rope_scaling`
// (transformers 4 and most hub files). Source followed: transformers' modeling_rope_utils (keys per type, defaults).
import { z } from 'zod';
import { ConfigError, UnsupportedError } from './errors.js';
import { validate } from './fields.js';
import type { JsonObject } from './json.js';
import { isPlainObject, jsonEqual } from './json.js';
import { didYouMean } from './names.js';
import { nullable, positive, real } from './schema.js';

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
      | { type: 'linear'; factor: number }
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
export const ROPE_TYPES: readonly RopeType[] = Object.freeze([
  'default',
  'linear',
  'dynamic',
  'yarn',
  'longrope',
  'llama3',
] as const);

const factor = real.min(1, { error: 'must be 1 or more' });
const above0 = real.gt(0, { error: 'must be greater than 0' });
const factors = z.array(above0, { error: 'must be a list of numbers' });
const original = nullable(positive);
const shapes = {
  default: z.object({}),
  linear: z.object({ factor }),
  dynamic: z.object({ factor, original_max_position_embeddings: original }),
  yarn: z.object({
    factor,
    original_max_position_embeddings: original,
    attention_factor: nullable(above0),
    beta_fast: nullable(above0),
    beta_slow: nullable(above0),
    mscale: nullable(above0),
    mscale_all_dim: nullable(above0),
    truncate: z.boolean().nullish(),
  }),
  longrope: z.object({
    factor: nullable(factor),
    original_max_position_embeddings: original,
    short_factor: factors,
    long_factor: factors,
    attention_factor: nullable(above0),
  }),
  llama3: z.object({
    factor,
    low_freq_factor: above0,
    high_freq_factor: above0,
    original_max_position_embeddings: positive,
  }),
} as const;

export interface RopeContext {
  op: string;
  /** Dimensions of a head. */
  headDim: number;
  maxPositionEmbeddings: number;
}

const GENERAL = ['type', 'rope_type', 'rope_theta', 'partial_rotary_factor'];

function typeOf(op: string, settings: JsonObject): RopeType {
  const { rope_type: named, type: older } = settings;
  if (named !== undefined && older !== undefined && named !== older) {
    throw new ConfigError(op, `rope_type is ${JSON.stringify(named)} and type is ${JSON.stringify(older)}`, {
      why: 'both name the same setting',
    });
  }
  const word = named ?? older ?? 'default';
  const type = word === 'su' ? 'longrope' : word;
  const found = ROPE_TYPES.find((candidate) => candidate === type);
  if (found === undefined)
    throw new UnsupportedError(op, `unknown rope type ${JSON.stringify(word)}`, {
      fix: `supported: ${ROPE_TYPES.join(', ')}`,
    });
  return found;
}

function read(
  settings: JsonObject,
  top: JsonObject,
  { op, headDim, maxPositionEmbeddings: max }: RopeContext,
): RopeConfig {
  const type = typeOf(op, settings);
  const allowed = [...GENERAL, ...Object.keys(shapes[type].shape)];
  for (const key of Object.keys(settings)) {
    if (!allowed.includes(key))
      throw new ConfigError(op, `unknown key ${key} in the rope settings of type ${type}`, {
        why: 'it may change the positions',
        fix: didYouMean(key, allowed),
      });
  }
  const inherit = (key: string): unknown => settings[key] ?? top[key] ?? undefined;
  const base = validate(
    op,
    z.object({
      rope_theta: above0.default(10000),
      partial_rotary_factor: above0.max(1, { error: 'must be in (0, 1]' }).default(1),
    }),
    {
      rope_theta: inherit('rope_theta'),
      partial_rotary_factor: inherit('partial_rotary_factor'),
    },
  );
  const common = { theta: base.rope_theta, partialRotaryFactor: base.partial_rotary_factor };
  const given = { ...settings, original_max_position_embeddings: inherit('original_max_position_embeddings') };
  const nameOf = (field: string): string => `rope ${field}`;
  switch (type) {
    case 'default':
      return { type, ...common };
    case 'linear':
      return { type, ...common, factor: validate(op, shapes.linear, given, nameOf).factor };
    case 'dynamic': {
      const s = validate(op, shapes.dynamic, given, nameOf);
      return {
        type,
        ...common,
        factor: s.factor,
        originalMaxPositionEmbeddings: s.original_max_position_embeddings ?? max,
      };
    }
    case 'yarn': {
      const s = validate(op, shapes.yarn, given, nameOf);
      const [betaFast, betaSlow] = [s.beta_fast ?? 32, s.beta_slow ?? 1];
      if (betaFast < betaSlow)
        throw new ConfigError(op, `rope beta_fast is ${betaFast}`, { why: `must be at least beta_slow (${betaSlow})` });
      return {
        type,
        ...common,
        factor: s.factor,
        originalMaxPositionEmbeddings: s.original_max_position_embeddings ?? max,
        attentionFactor: s.attention_factor,
        betaFast,
        betaSlow,
        mscale: s.mscale,
        mscaleAllDim: s.mscale_all_dim,
        truncate: s.truncate ?? true,
      };
    }
    case 'longrope': {
      const s = validate(op, shapes.longrope, given, nameOf);
      const half = Math.floor(headDim * common.partialRotaryFactor) / 2;
      for (const key of ['short_factor', 'long_factor'] as const) {
        if (s[key].length !== half)
          throw new ConfigError(op, `rope ${key} has ${s[key].length} entries`, {
            why: `must have ${half}, one per rotated pair of a head`,
          });
      }
      const originalMax = s.original_max_position_embeddings ?? max;
      return {
        type,
        ...common,
        factor: s.factor ?? Math.max(1, max / originalMax),
        originalMaxPositionEmbeddings: originalMax,
        shortFactor: s.short_factor,
        longFactor: s.long_factor,
        attentionFactor: s.attention_factor,
      };
    }
    case 'llama3': {
      const s = validate(op, shapes.llama3, given, nameOf);
      if (s.low_freq_factor >= s.high_freq_factor)
        throw new ConfigError(op, `rope low_freq_factor is ${s.low_freq_factor}`, {
          why: `must be below high_freq_factor (${s.high_freq_factor})`,
        });
      return {
        type,
        ...common,
        factor: s.factor,
        lowFreqFactor: s.low_freq_factor,
        highFreqFactor: s.high_freq_factor,
        originalMaxPositionEmbeddings: s.original_max_position_embeddings,
      };
    }
  }
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
      throw new ConfigError(context.op, `${key} must be an object`, { got: value });
  }
  if (isPlainObject(current) && Object.values(current).some(isPlainObject)) {
    throw new UnsupportedError(context.op, 'rope_parameters differ between kinds of layers', {
      fix: 'use a model with one set of rope settings',
    });
  }
  const fromCurrent = isPlainObject(current) ? read(current as JsonObject, raw, context) : undefined;
  if (fromCurrent && raw.rope_theta !== undefined && raw.rope_theta !== fromCurrent.theta) {
    throw new ConfigError(context.op, `rope_theta is ${JSON.stringify(raw.rope_theta)}`, {
      why: `rope_parameters says ${fromCurrent.theta}`,
      fix: 'remove one of them',
    });
  }
  const older = legacy ?? (fromCurrent ? undefined : {});
  const fromLegacy = older === undefined || older === null ? undefined : read(older as JsonObject, raw, context);
  if (fromCurrent && fromLegacy && !jsonEqual(fromCurrent, fromLegacy)) {
    throw new ConfigError(context.op, 'rope_parameters and rope_scaling/rope_theta say different things', {
      rope_parameters: fromCurrent,
      legacy: fromLegacy,
      fix: 'remove one of them',
    });
  }
  return fromCurrent ?? fromLegacy ?? read({}, raw, context);
}
