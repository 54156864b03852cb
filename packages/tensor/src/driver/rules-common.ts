// What tables of rules are written in; see rules.ts.

/** Sizes of one axis, and indices, are 32 bits on every device. */
export const largestSize = 2 ** 31 - 1;
/** Counts of elements, and what no kernel multiplies. */
export const largestCount = 2 ** 53;

/**
 * What a tensor may hold. `act`: an activation dtype of the device, the same for all such tensors of a command;
 * `logits`: any activation dtype of the device; `float`: f32, f16 or bf16; `any`: any.
 */
export type Kind = 'act' | 'logits' | 'float' | 'f32' | 'i32' | 'u8' | 'i8' | 'any';

/** Element type, and the least number of elements. */
export type TensorRule = readonly [kind: Kind, count?: string];

export interface Rules {
  /** Least and largest value of integers; those not named go from 0 to 2^31 - 1. */
  readonly integers?: Readonly<Record<string, readonly [least: number, largest: number]>>;
  /** Numbers that must not be negative, or NaN. */
  readonly notNegative?: readonly string[];
  readonly tensors?: Readonly<Record<string, TensorRule>>;
  /** Conditions, each with what to say when it does not hold; the message begins with a field. */
  readonly where?: readonly (readonly [condition: string, message: string])[];
  /** More rules for some values of the fields; tensors named here must be there. */
  readonly cases?: readonly ({ readonly when: string } & Omit<Rules, 'cases' | 'items' | 'writes' | 'inPlace'>)[];
  /** Rules of the items of a list; their expressions may use the fields around them. */
  readonly items?: Readonly<Record<string, Rules>>;
  /**
   * The tensors that a command writes: each must lie apart from all its other tensors, but for those of `inPlace`,
   * which may also begin at the same byte.
   */
  readonly writes?: readonly string[];
  readonly inPlace?: readonly (readonly [written: string, other: string])[];
}

export const count: Rules['integers'] = { count: [0, largestCount] };
export const rowsOf = (kind: Kind): TensorRule => [kind, 'rows * width'];
export const width: Rules['integers'] = { width: [1, largestSize] };
export const activationKind = [0, 7] as const;
export const floatCode = [0, 2] as const;
