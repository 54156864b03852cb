import {
  ConfigError,
  isPlainObject,
  readRope,
  schema,
  type JsonObject,
  type RopeConfig,
  type RopeContext,
} from '@q/config';
import { oneOf } from './sizes.js';

const { nullable, real } = schema;

/** A share of each head that is rotated. */
export const rotaryShare = nullable(real.gt(0, { error: 'must be in (0, 1]' }).max(1, { error: 'must be in (0, 1]' }));

/** Where a Python class differs from `rope_theta` 10000 and a whole head that is rotated. */
export interface RopeSpelling {
  /** Base of the frequencies where the file has none. Default 10000. */
  readonly theta?: number;
  /** Share of a head where the file has none. Default 1. */
  readonly share?: number;
  /** The base under its other names. */
  readonly bases?: Readonly<Record<string, number | null>>;
  /** The share under its other names. */
  readonly shares?: Readonly<Record<string, number | null>>;
}

/** Rotary settings of a class with spellings or defaults of its own. @throws ConfigError where two spellings differ */
export function readRopeSpelled(raw: JsonObject, context: RopeContext, spelling: RopeSpelling): RopeConfig {
  const { op } = context;
  const current = isPlainObject(raw.rope_parameters) ? raw.rope_parameters : {};
  const number = (value: unknown): number | null => (typeof value === 'number' ? value : null);
  const spelled = (key: string) => ({ [key]: number(raw[key]), [`rope_parameters.${key}`]: number(current[key]) });
  const bases = { ...spelling.bases, ...spelled('rope_theta') };
  const shares = { ...spelling.shares, ...spelled('partial_rotary_factor') };
  return readRope(
    {
      ...raw,
      rope_theta: oneOf(op, bases, spelling.theta ?? 10000),
      partial_rotary_factor: oneOf(op, shares, spelling.share ?? 1),
    },
    context,
  );
}

/** For classes that rotate whole heads, whatever the file says. @throws ConfigError for a smaller share */
export function assertWholeHead(op: string, { partialRotaryFactor }: RopeConfig): void {
  if (partialRotaryFactor === 1) return;
  throw new ConfigError(op, `partial_rotary_factor is ${partialRotaryFactor}`, {
    why: 'this architecture rotates whole heads',
    fix: 'remove the key',
  });
}
