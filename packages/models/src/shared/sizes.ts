// Sizes of a config that every architecture has: readers of single ones, and rules between them.
import {
  ConfigError,
  MAX_HEAD_DIM,
  MAX_HEADS,
  MAX_HIDDEN,
  MAX_INTERMEDIATE,
  MAX_LAYERS,
  MAX_PARAMETERS,
  MAX_POSITIONS,
  MAX_VOCAB,
  NORM_EPS,
  schema,
  show,
} from '@q/config';

/** Readers of sizes that nearly every config has, each within its bound of `@q/config`'s limits. */
export const size = {
  vocab: schema.sizeUpTo(MAX_VOCAB),
  hidden: schema.sizeUpTo(MAX_HIDDEN),
  intermediate: schema.sizeUpTo(MAX_INTERMEDIATE),
  layers: schema.sizeUpTo(MAX_LAYERS),
  heads: schema.sizeUpTo(MAX_HEADS),
  headDim: schema.sizeUpTo(MAX_HEAD_DIM),
  positions: schema.sizeUpTo(MAX_POSITIONS),
  normEps: schema.realIn(NORM_EPS),
} as const;

/** @throws ConfigError for sizes that are fine one by one and not together */
export function assertPlausible(op: string, parameters: number, sizes: Readonly<Record<string, number>>): void {
  if (parameters <= MAX_PARAMETERS) return;
  throw new ConfigError(op, `the sizes make ${parameters.toExponential(1)} parameters`, {
    ...sizes,
    why: `at most ${MAX_PARAMETERS.toExponential(0)} are plausible`,
  });
}

/** @throws ConfigError for stacks of layers that are too many together */
export function assertLayers(op: string, stacks: Readonly<Record<string, number>>): void {
  const layers = Object.values(stacks).reduce((a, b) => a + b, 0);
  if (layers <= MAX_LAYERS) return;
  throw new ConfigError(op, `the stacks have ${layers} layers`, {
    ...stacks,
    why: `at most ${MAX_LAYERS} are plausible`,
  });
}

/** @throws ConfigError unless `part` divides `whole` */
export function assertDivides(op: string, part: readonly [string, number], whole: readonly [string, number]): void {
  if (whole[1] % part[1] === 0) return;
  throw new ConfigError(op, `${part[0]} is ${part[1]}`, { why: `must divide ${whole[0]} (${whole[1]})` });
}

/** Elements of a head where heads share the width. @throws ConfigError unless they do evenly, or a head is too large */
export function headDimOf(op: string, heads: readonly [string, number], width: readonly [string, number]): number {
  assertDivides(op, heads, width);
  const headDim = width[1] / heads[1];
  if (headDim <= MAX_HEAD_DIM) return headDim;
  throw new ConfigError(op, `${width[0]} is ${width[1]} and ${heads[0]} ${heads[1]}`, {
    why: `a head must have at most ${MAX_HEAD_DIM} elements`,
  });
}

/** One setting that files spell in several ways. @throws ConfigError when two of them differ */
export function oneOf<T extends number | string>(
  op: string,
  spellings: Readonly<Record<string, T | null>>,
  fallback: T,
): T {
  const given = Object.entries(spellings).filter((entry): entry is [string, T] => entry[1] !== null);
  const [first, ...others] = given;
  if (first === undefined) return fallback;
  const other = others.find(([, value]) => value !== first[1]);
  if (other === undefined) return first[1];
  throw new ConfigError(op, `${first[0]} is ${show(first[1])} and ${other[0]} is ${show(other[1])}`, {
    why: 'both name the same setting',
  });
}
