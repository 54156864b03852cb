import { printable } from './printable.js';
import { MAX_MESSAGE, MAX_SHOWN } from './limits.js';

/** What went wrong, as a stable word that callers can branch on. */
export type QErrorCode =
  | 'config'
  | 'shape'
  | 'dtype'
  | 'unsupported'
  | 'checkpoint'
  | 'placement'
  | 'out_of_memory'
  | 'disposed'
  | 'numerics'
  | 'native';

/** Facts behind an error: values got and expected, names, sizes in bytes. */
export type ErrorFields = Readonly<Record<string, unknown>>;

export interface ErrorDetail {
  /** Why it is wrong: the rule that was broken. */
  why?: string;
  /** What the caller can do. */
  fix?: string;
  cause?: unknown;
  [field: string]: unknown;
}

const clip = (text: string, limit: number): string =>
  text.length > limit ? `${text.slice(0, limit)}... (${text.length} characters)` : text;

function asJson(value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return typeof value === 'bigint' ? String(value) : `a ${typeof value} that cannot be shown`; // cyclic, or too deep
  }
}

const show = (value: unknown): string => clip(typeof value === 'string' ? value : asJson(value), MAX_SHOWN);

/**
 * Every error that Q throws. The message reads `[op] what, with values; why; what to do`, `code` says which kind,
 * `fields` holds the values as data. The message is one line: what a terminal would act on is escaped, and what is
 * very long is cut; `fields` has everything as it was.
 */
export class QError extends Error {
  readonly code: QErrorCode;
  readonly op: string;
  readonly fields: ErrorFields;

  constructor(code: QErrorCode, op: string, what: string, detail: ErrorDetail = {}) {
    const { why, fix, cause, ...fields } = detail;
    const values = Object.entries(fields).map(([key, value]) => `${key} ${show(value)}`);
    const first = values.length > 0 ? `${what} (${values.join(', ')})` : what;
    const message = [first, why, fix].filter(Boolean).join('; ');
    super(`[${op}] ${printable(clip(message, MAX_MESSAGE))}`, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.code = code;
    this.op = op;
    this.fields = fields;
  }
}

/** A configuration, option or argument that cannot be right. */
export class ConfigError extends QError {
  constructor(op: string, what: string, detail?: ErrorDetail) {
    super('config', op, what, detail);
  }
}

/** Shapes that do not fit together. */
export class ShapeError extends QError {
  constructor(op: string, what: string, detail?: ErrorDetail) {
    super('shape', op, what, detail);
  }
}

/** An element type that an op does not take. */
export class DTypeError extends QError {
  constructor(op: string, what: string, detail?: ErrorDetail) {
    super('dtype', op, what, detail);
  }
}

/** Something valid that Q does not do: an architecture, a format, a kernel for these arguments. */
export class UnsupportedError extends QError {
  constructor(op: string, what: string, detail?: ErrorDetail) {
    super('unsupported', op, what, detail);
  }
}

/** A checkpoint that is damaged, incomplete or not what its config says. */
export class CheckpointError extends QError {
  constructor(op: string, what: string, detail?: ErrorDetail) {
    super('checkpoint', op, what, detail);
  }
}

/** A device map or memory budget that cannot be met. */
export class PlacementError extends QError {
  constructor(op: string, what: string, detail?: ErrorDetail) {
    super('placement', op, what, detail);
  }
}

/** A device or the host has too little free memory; fields name the device, the wanted and the free bytes. */
export class OutOfMemoryError extends QError {
  constructor(op: string, what: string, detail?: ErrorDetail) {
    super('out_of_memory', op, what, detail);
  }
}

/** Use of something after it was disposed. */
export class DisposedError extends QError {
  constructor(op: string, what: string, detail?: ErrorDetail) {
    super('disposed', op, what, detail);
  }
}

/** A computation that gave NaN or infinity where it must not; fields name where and when. */
export class NumericsError extends QError {
  constructor(op: string, what: string, detail?: ErrorDetail) {
    super('numerics', op, what, detail);
  }
}

/** A failure reported by a native addon or a driver. */
export class NativeError extends QError {
  constructor(op: string, what: string, detail?: ErrorDetail) {
    super('native', op, what, detail);
  }
}
