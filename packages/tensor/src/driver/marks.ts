// What a driver that runs commands side by side, or two as one, may know of them beyond their arguments. native/q_ops.h
// turns these marks into traits of the arguments; nothing here changes what a command means or how it is encoded, so
// the hash of the table leaves them out.
import type { commands, CommandName, Fields, FieldType } from './schema.js';

type Table = typeof commands;
type PlainTensor<S extends Fields> = {
  [K in keyof S & string]: S[K] extends 'tensor' | 'tensor?' ? K : never;
}[keyof S & string];
/** Tensor fields of a command, those of a list as `list.field`. */
export type TensorField<S extends Fields> = {
  [K in keyof S & string]: S[K] extends { readonly repeat: infer G extends Fields }
    ? `${K}.${TensorField<G>}`
    : S[K] extends 'tensor' | 'tensor?'
      ? K
      : never;
}[keyof S & string];

/** A command that may wait, recorded, for the one that reads what it makes, to be run with it in one launch. */
export interface Join<N extends CommandName, M extends CommandName = CommandName> {
  readonly command: M;
  /** The tensor that it makes, and the one of the other command that must begin at the same byte. */
  readonly out: PlainTensor<Table[N]>;
  readonly into: PlainTensor<Table[M]>;
  /** It waits only without these tensors, and with so many `rows` at most: beyond, no kernel takes both. */
  readonly without: readonly PlainTensor<Table[N]>[];
  readonly mostRows: number;
}

export interface Marks<N extends CommandName> {
  /**
   * Tensors that kernels of the command may read before the kernels ahead of them have ended. A driver lets them only
   * where nothing that may still run names that memory.
   */
  readonly early?: readonly TensorField<Table[N]>[];
  readonly joins?: { [M in CommandName]: Join<N, M> }[CommandName];
}

export const marks: { readonly [N in CommandName]?: Marks<N> } = {
  linear: {
    early: ['parts.weight', 'parts.bias', 'parts.absmax', 'parts.nestedAbsmax', 'parts.nestedCode', 'parts.offset'],
  },
  expertLinear: {
    early: ['parts.weight', 'parts.bias', 'parts.absmax', 'parts.nestedAbsmax', 'parts.nestedCode', 'parts.offset'],
  },
  rmsNorm: { joins: { command: 'linear', out: 'out', into: 'x', without: ['residual', 'sum'], mostRows: 16 } },
  ropeKvWrite: { early: ['positions', 'sequenceOf', 'blockTables', 'inverseFrequencies'] },
  attention: { early: ['sequenceStarts', 'contextLengths', 'blockTables'] },
};

export const isTensor = (type: FieldType): boolean => type === 'tensor' || type === 'tensor?';
