import { z } from 'zod';
import { QError } from './errors.js';
import type { DTypeName } from './dtype.js';
import { parseDType } from './dtype.js';

/** Optional, and null (Python's None) when missing. */
export const nullable = <S extends z.ZodType>(schema: S) => schema.nullish().transform((value) => value ?? null);

/** Optional; missing or null means `fallback`. */
export const orElse = <S extends z.ZodType>(schema: S, fallback: z.output<S>) =>
  schema.nullish().transform((value) => value ?? fallback);

export const flag = (fallback: boolean) => z.boolean({ error: 'must be true or false' }).default(fallback);
export const integer = z.int({ error: 'must be an integer' });
export const positive = integer.min(1, { error: 'must be at least 1' });
export const real = z.number({ error: 'must be a finite number' });
export const text = z.string({ error: 'must be a string' });
export const texts = z.array(text, { error: 'must be a list of strings' });
export const ids = z.array(integer, { error: 'must be a list of token ids' });
export const idOrIds = z.union([integer, ids], { error: 'must be a token id or a list of token ids' });
export const record = z.record(z.string(), z.json(), { error: 'must be an object' });

/** A dtype by any of its names, restricted to `allowed`. */
export const dtype = <D extends DTypeName>(allowed: readonly D[]) =>
  z.unknown().transform((value, context): D => {
    try {
      const name = parseDType(value);
      const found = allowed.find((candidate) => candidate === name);
      if (found !== undefined) return found;
    } catch (error) {
      if (!(error instanceof QError)) throw error;
    }
    context.addIssue({ code: 'custom', message: `must be one of ${allowed.join(', ')}`, input: value });
    return z.NEVER;
  });
