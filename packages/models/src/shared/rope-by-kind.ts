import { ConfigError, isPlainObject, type JsonObject, type RopeConfig, type RopeContext } from '@q/config';
import type { LayerType } from './decoder-config.js';
import { assertWholeHead, numberAt, readRopeSpelled } from './rope-spelling.js';

/** Where the settings of a kind of layers are in files of transformers 4, and the base that they default to. */
export interface KindSpelling {
  readonly theta: number;
  /** Key of the base. */
  readonly baseKey: string;
  /** Whether `rope_scaling` is for these layers. */
  readonly scaled: boolean;
}

/**
 * Rotary settings of each kind of layers: `rope_parameters` holds an object for each (transformers 5), or each has a
 * base of its own (transformers 4). Whole heads are rotated.
 * @throws ConfigError for bad or contradicting values, and for `rope_parameters` that are not by kind
 */
export function readRopeByKind<K extends LayerType>(
  raw: JsonObject,
  context: RopeContext,
  spellings: Readonly<Record<K, KindSpelling>>,
): Readonly<Record<K, RopeConfig>> {
  const kinds = Object.keys(spellings) as K[];
  const { rope_parameters, rope_scaling, original_max_position_embeddings, partial_rotary_factor } = raw;
  const byKind = isPlainObject(rope_parameters) ? (rope_parameters as JsonObject) : {};
  assertByKind(context.op, rope_parameters, kinds);
  const readKind = (kind: K): RopeConfig => {
    const { theta, baseKey, scaled } = spellings[kind];
    const settings = {
      rope_parameters: byKind[kind],
      partial_rotary_factor,
      [baseKey]: raw[baseKey],
      ...(scaled && { rope_scaling, original_max_position_embeddings }),
    };
    const spelling = { theta, bases: { [baseKey]: numberAt(context.op, raw, baseKey) } };
    const rope = readRopeSpelled(settings as JsonObject, context, spelling);
    assertWholeHead(context.op, rope);
    return rope;
  };
  return Object.fromEntries(kinds.map((kind) => [kind, readKind(kind)])) as Record<K, RopeConfig>;
}

function assertByKind(op: string, given: unknown, kinds: readonly string[]): void {
  if (given === undefined || given === null) return;
  const known = (key: string, value: unknown) => kinds.includes(key) && (value === null || isPlainObject(value));
  if (isPlainObject(given) && Object.entries(given).every(([key, value]) => known(key, value))) return;
  throw new ConfigError(op, 'rope_parameters are not by kind of layers', {
    why: 'these layers are rotated in different ways',
    fix: `give an object each for ${kinds.join(' and ')}`,
  });
}
